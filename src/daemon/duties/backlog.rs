//! Telling operators how many rows wait, for each model, so that an autoscaler can start servers before any answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::timer::TickResult;
use crate::storage::{ModelBacklog, Storage};
use crate::sync::lock;
use crate::telemetry::metrics;

const EVERY: Duration = Duration::from_secs(5);
/// Models that one query asks about. Batches rarely have so many.
const MODELS: u32 = 1000;
/// Models that have metrics of their own, for as long as the process runs: names come from users, and each is kept.
const NAMED: usize = 64;
/// Stands for all other models.
const OTHERS: &str = "(others)";

/// Measures the backlog of all batches, also of rows that other daemons run.
pub(super) struct MeasureBacklog<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) labels: ModelLabels,
}

/// The models that have metrics of their own.
#[derive(Default)]
pub(super) struct ModelLabels(Mutex<BTreeSet<String>>);

impl ModelLabels {
    /// The backlog of each label, those that have none included.
    fn label(&self, backlogs: Vec<ModelBacklog>) -> Vec<(String, Option<ModelBacklog>)> {
        let mut known = lock(&self.0);
        let mut others: Option<ModelBacklog> = None;
        let mut labelled = Vec::new();
        for backlog in backlogs {
            if known.contains(&backlog.model) || known.len() < NAMED {
                known.insert(backlog.model.clone());
                labelled.push((backlog.model.clone(), Some(backlog)));
            } else {
                others = Some(match others {
                    None => backlog,
                    Some(sum) => together(sum, &backlog),
                });
            }
        }
        let is_idle = |name: &&String| !labelled.iter().any(|(label, _)| label == *name);
        let idle: Vec<_> = known.iter().filter(is_idle).map(|name| (name.clone(), None)).collect();
        labelled.extend(idle);
        if known.len() >= NAMED {
            labelled.push((OTHERS.to_owned(), others));
        }
        labelled
    }
}

fn together(sum: ModelBacklog, more: &ModelBacklog) -> ModelBacklog {
    ModelBacklog {
        rows: sum.rows + more.rows,
        oldest_created_at: sum.oldest_created_at.min(more.oldest_created_at),
        first_expires_at: sum.first_expires_at.min(more.first_expires_at),
        ..sum
    }
}

#[async_trait]
impl<S: Storage> Duty for MeasureBacklog<S> {
    fn name(&self) -> &'static str {
        "backlog"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_woken(&self) -> bool {
        false
    }

    async fn tick(&self) -> TickResult {
        for (label, backlog) in self.labels.label(self.shared.storage.backlogs(MODELS).await?) {
            let (oldest, deadline) = backlog.as_ref().map(|b| (b.oldest_created_at, b.first_expires_at)).unzip();
            metrics::backlog_of(label, backlog.map_or(0, |backlog| backlog.rows), oldest, deadline);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn backlog(model: usize, rows: u64) -> ModelBacklog {
        let at = |seconds: usize| Timestamp(i64::try_from(seconds).expect("a small number"));
        ModelBacklog {
            model: format!("m{model}"),
            rows,
            oldest_created_at: at(model),
            first_expires_at: at(1000 - model),
        }
    }

    fn rows_of(labelled: &[(String, Option<ModelBacklog>)], label: &str) -> Option<u64> {
        let found = labelled.iter().find(|(name, _)| name == label);
        found.map(|(_, backlog)| backlog.as_ref().map_or(0, |backlog| backlog.rows))
    }

    #[test]
    fn a_model_without_rows_keeps_its_label() {
        let labels = ModelLabels::default();

        assert_eq!(rows_of(&labels.label(vec![backlog(1, 5)]), "m1"), Some(5));
        let idle = labels.label(vec![backlog(2, 7)]);
        assert_eq!((rows_of(&idle, "m1"), rows_of(&idle, "m2")), (Some(0), Some(7)));
        assert_eq!(rows_of(&idle, OTHERS), None, "there is room for more names");
    }

    #[test]
    fn however_many_models_there_are_the_labels_are_few() {
        let labels = ModelLabels::default();

        let labelled = labels.label((0..NAMED + 3).map(|no| backlog(no, 10)).collect());

        assert_eq!(labelled.len(), NAMED + 1);
        let others = labelled.last().and_then(|(_, backlog)| backlog.as_ref()).expect("three models");
        assert_eq!((others.rows, others.oldest_created_at), (30, backlog(NAMED, 0).oldest_created_at));
        assert_eq!(others.first_expires_at, backlog(NAMED + 2, 0).first_expires_at);
        assert_eq!(labels.label(vec![backlog(900, 1)]).len(), NAMED + 1);
    }
}

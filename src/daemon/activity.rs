//! What this daemon does at a moment, which it tells with its heartbeats: any replica of the API can then say why a
//! batch is slow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::core::DaemonCore;
use super::recording::ModelCourses;
use super::rows::{Queue, RetryingRows, RowRunner};
use crate::domain::activity::{BatchActivity, DaemonActivity, MAX_BATCHES, MAX_COURSES, MAX_MODELS};
use crate::domain::ids::BatchId;
use crate::storage::{Result, Storage};
use crate::sync::lock;

/// Tells what the daemon does.
pub(super) struct ActivityReporter<S> {
    shared: Arc<DaemonCore<S>>,
    queue: Arc<Queue>,
    retrying: Arc<RetryingRows>,
    courses: Arc<ModelCourses>,
    told: Mutex<Option<DaemonActivity>>,
}

impl<S: Storage> ActivityReporter<S> {
    pub(super) fn new<P>(runner: &RowRunner<S, P>, courses: Arc<ModelCourses>) -> Self {
        let (queue, retrying) = (runner.queue.clone(), runner.retrying.clone());
        Self { shared: runner.shared.clone(), queue, retrying, courses, told: Mutex::default() }
    }

    /// Tells it, if it is not what was told last.
    pub(super) async fn tell(&self) -> Result<()> {
        let activity = self.activity();
        if lock(&self.told).as_ref() == Some(&activity) {
            return Ok(());
        }
        self.shared.storage.tell_activity(self.shared.id, &activity).await?;
        *lock(&self.told) = Some(activity);
        Ok(())
    }

    fn activity(&self) -> DaemonActivity {
        let unserved = self.shared.registry.unserved();
        let unserved = unserved.iter().take(MAX_MODELS).map(ToString::to_string).collect();
        let (mut models, batches) = self.queue.models().activity();
        models.sort_by_key(|model| std::cmp::Reverse(model.running));
        models.truncate(MAX_MODELS);
        let now = self.shared.clock.now();
        for model in models.iter_mut().take(MAX_COURSES) {
            model.recent = self.courses.of(&model.model, now);
        }
        DaemonActivity { batches: self.with_retries(batches), models, unserved }
    }

    fn with_retries(&self, batches: Vec<BatchActivity>) -> Vec<BatchActivity> {
        let mut by_id: HashMap<BatchId, BatchActivity> = HashMap::new();
        for batch in batches {
            let known = by_id.entry(batch.id).or_insert_with(|| BatchActivity::none(batch.id));
            known.running += batch.running;
            known.last_begun = known.last_begun.max(batch.last_begun);
        }
        for (id, (rows, code)) in self.retrying.by_batch() {
            let known = by_id.entry(id).or_insert_with(|| BatchActivity::none(id));
            (known.retrying, known.retrying_for) = (rows, Some(code.to_owned()));
        }
        let mut batches: Vec<_> = by_id.into_values().collect();
        batches.sort_by_key(|batch| (std::cmp::Reverse(batch.running + batch.retrying), batch.id));
        batches.truncate(MAX_BATCHES);
        batches
    }
}

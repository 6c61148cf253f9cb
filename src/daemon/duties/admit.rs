//! Validation: a batch that was created either opens its lanes, or fails with a list of what is wrong with its input.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::lost_input::GONE_AFTER;
use crate::daemon::timer::TickResult;
use crate::domain::batch::{Batch, BatchError};
use crate::domain::ids::{BatchId, FileId};
use crate::domain::report::{NewLane, file_not_found};
use crate::domain::row::shown;
use crate::storage::{Result, Storage, StorageError};
use crate::telemetry::chain;

const EVERY: Duration = Duration::from_secs(1);
const BATCHES: u32 = 64;

/// Admits or refuses the batches in `validating`.
pub(super) struct Admit<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) items: Items<BatchId>,
}

#[async_trait]
impl<S: Storage> Duty for Admit<S> {
    fn name(&self) -> &'static str {
        "admit"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    async fn tick(&self) -> TickResult {
        let page = |after| self.shared.storage.batches_to_admit(after, BATCHES);
        self.items.for_each(page, |batch| admit_or_refuse(&self.shared, &self.items, batch)).await
    }
}

async fn admit_or_refuse<S: Storage>(shared: &DaemonCore<S>, items: &Items<BatchId>, batch: Batch) -> TickResult {
    let now = shared.clock.now();
    match admit(shared, &batch).await {
        Ok(Ok(lanes)) => {
            if let Some(lanes) = lanes {
                tracing::info!(batch_id = %batch.id, lanes, "batch in progress");
                shared.wakeup.wake();
            }
        }
        Ok(Err(errors)) => refuse(shared, &batch, &errors).await?,
        // Corrupt data stays corrupt. Any other fault of this batch alone may pass while its window is open; after that
        // the batch would not run anyway.
        Err(error) if !error.is_outage() => {
            let is_corrupt = matches!(error, StorageError::Corrupt { .. });
            let is_hopeless = is_corrupt && items.failing_for(batch.id) >= GONE_AFTER || now >= batch.expires_at;
            if !is_hopeless {
                return Err(error.into());
            }
            tracing::error!(batch_id = %batch.id, error = chain(&error), "a batch is refused: it cannot be admitted");
            refuse(shared, &batch, &[not_admitted()]).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Opens a batch's lanes and returns how many, or `None` if another daemon has done it. The inner error is the list of
/// reasons why the batch cannot run.
async fn admit<S: Storage>(
    shared: &DaemonCore<S>,
    batch: &Batch,
) -> Result<std::result::Result<Option<usize>, Vec<BatchError>>> {
    let lanes = match lanes(shared, batch).await? {
        Ok(lanes) => lanes,
        Err(errors) => return Ok(Err(errors)),
    };
    if shared.settings.refuses_unknown_models && !shared.registry.may_learn_of_models() {
        let unknown = lanes.iter().filter(|lane| !shared.registry.serves(&lane.model));
        let errors: Vec<_> = unknown.map(|lane| model_not_found(&lane.model)).collect();
        if !errors.is_empty() {
            return Ok(Err(errors));
        }
    }
    let admitted = shared.storage.admit_batch(batch.id, &lanes, shared.clock.now()).await?;
    Ok(Ok(admitted.then_some(lanes.len())))
}

async fn refuse<S: Storage>(shared: &DaemonCore<S>, batch: &Batch, errors: &[BatchError]) -> TickResult {
    if shared.storage.refuse_batch(batch.id, errors, shared.clock.now()).await? {
        tracing::info!(batch_id = %batch.id, errors = errors.len(), "batch failed validation");
    }
    Ok(())
}

fn model_not_found(model: &str) -> BatchError {
    BatchError {
        code: "model_not_found".to_owned(),
        message: format!("The model '{}' does not exist here. GET /v1/models lists those that do.", shown(model)),
        param: Some("body.model".to_owned()),
        line: None,
    }
}

fn not_admitted() -> BatchError {
    BatchError {
        code: "input_unavailable".to_owned(),
        message: "What is known of the input file cannot be read any more. Please upload the file again, and create \
                  another batch with it."
            .to_owned(),
        param: Some("file_id".to_owned()),
        line: None,
    }
}

async fn lanes<S: Storage>(
    shared: &DaemonCore<S>,
    batch: &Batch,
) -> Result<std::result::Result<Vec<NewLane>, Vec<BatchError>>> {
    let not_found = || Ok(Err(vec![file_not_found(&batch.input_file_id)]));
    let Some(id) = FileId::parse(&batch.input_file_id) else { return not_found() };
    let Some(file) = shared.storage.file(&batch.owner, id, shared.clock.now()).await? else { return not_found() };
    let Some(report) = shared.storage.file_report(&batch.owner, id).await? else { return not_found() };
    let lanes = report.lanes(batch.endpoint, file.bytes, &shared.settings.limits);
    // A batch with fewer rows than its file would end `completed` all the same.
    if lanes.as_ref().is_ok_and(|lanes| lanes.iter().map(NewLane::rows).sum::<u64>() != report.rows) {
        return Err(StorageError::Corrupt { table: "files", column: "report", id: batch.input_file_id.clone() });
    }
    Ok(lanes)
}

//! Validation: a batch that was created either opens its lanes, or fails with a list of what is wrong with its input.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use super::validation::{is_hopeless, validated_lanes};
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::timer::TickResult;
use crate::domain::batch::{Batch, BatchError};
use crate::domain::ids::BatchId;
use crate::domain::project_limits::COUNTED_BATCHES;
use crate::domain::report::NewLane;
use crate::storage::{Result, Storage};
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
    match admit(shared, &batch).await {
        Ok(Ok(lanes)) => {
            if let Some(lanes) = lanes {
                tracing::info!(batch_id = %batch.id, lanes, "batch in progress");
                shared.wakeup.wake();
            }
        }
        Ok(Err(errors)) => refuse(shared, &batch, &errors).await?,
        Err(error) if is_hopeless(&error, items.failing_for(batch.id), &batch, shared.clock.now()) => {
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
    let lanes = match validated_lanes(shared, batch).await? {
        Ok(lanes) => lanes,
        Err(errors) => return Ok(Err(errors)),
    };
    if let Some(error) = beyond_limit(shared, batch, &lanes).await? {
        return Ok(Err(vec![error]));
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

/// Why a batch has too many rows for the limit of its project, as OpenAI says it of tokens (contract §8.3). Two daemons
/// that look at the same moment may both admit one.
async fn beyond_limit<S: Storage>(
    shared: &DaemonCore<S>,
    batch: &Batch,
    lanes: &[NewLane],
) -> Result<Option<BatchError>> {
    let Some(limit) = shared.settings.projects.of(&batch.owner).queued_rows else { return Ok(None) };
    let rows: u64 = lanes.iter().map(|lane| u64::from(lane.last - lane.first)).sum();
    let queued = shared.storage.rows_in_progress(&batch.owner, COUNTED_BATCHES).await?.counts.owed();
    if queued + rows <= limit {
        return Ok(None);
    }
    let advice = if rows <= limit {
        "Please try again once some in_progress batches have been completed."
    } else {
        "Please split it into smaller batches."
    };
    let message = format!(
        "Enqueued row limit reached in project {}. Limit: {limit} enqueued rows, of which {queued} are used; this \
         batch has {rows}. {advice}",
        batch.owner
    );
    Ok(Some(BatchError { code: "row_limit_exceeded".to_owned(), message, param: None, line: None }))
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

//! Ending batches: rows that never ran get their lines, the files are published, and the status becomes terminal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use super::owed::{self, Owed, OwedError};
use super::validation::{is_hopeless, validated};
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::lost_input::{GONE_AFTER, is_lost};
use crate::daemon::timer::{DutyError, TickResult};
use crate::domain::batch::{Batch, BatchStatus, Counts};
use crate::domain::file::BATCH_FILE_RETENTION;
use crate::domain::ids::BatchId;
use crate::domain::line::NeverRan;
use crate::domain::report::NewLane;
use crate::storage::{Ending, RecordedPart, Storage, StorageError};
use crate::telemetry::{chain, metrics};

const EVERY: Duration = Duration::from_secs(1);
const BATCHES: u32 = 64;

/// Ends every batch that can be ended.
pub(super) struct Finalize<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) items: Items<BatchId>,
}

#[async_trait]
impl<S: Storage> Duty for Finalize<S> {
    fn name(&self) -> &'static str {
        "finalize"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    async fn tick(&self) -> TickResult {
        let page = |after| self.shared.storage.batches_to_finish(after, BATCHES);
        self.items.for_each(page, |batch| end(&self.shared, &self.items, batch)).await
    }
}

async fn end<S: Storage>(shared: &DaemonCore<S>, items: &Items<BatchId>, batch: Batch) -> TickResult {
    // `None`: a living daemon holds a lease of the batch. The batch can be ended when that daemon has given it back.
    let Some(mut counts) = shared.storage.fence(batch.id).await? else { return Ok(()) };
    let never_admitted = never_admitted(shared, items, &batch).await?;
    counts.total += never_admitted.iter().map(NewLane::rows).sum::<u64>();
    let why = why(&batch);
    let never_ran = if counts.owed() > 0 { Some(write_owed(shared, items, &batch, counts, why).await?) } else { None };
    if never_ran.as_ref().map_or(0, |part| part.rows.len()) != counts.owed() {
        return Err("the lines of the rows that never ran are not as many as are owed".into());
    }
    let now = shared.clock.now();
    let ending = Ending {
        id: batch.id,
        from: batch.status,
        never_ran,
        never_admitted,
        counts_as_failed: why == NeverRan::InputUnavailable,
        files_expire_at: Some(now.plus(batch.output_expires_after.unwrap_or(BATCH_FILE_RETENTION))),
    };
    if shared.storage.finish(&ending, now).await? {
        metrics::batch_ended();
        tracing::info!(
            batch_id = %batch.id,
            total = counts.total,
            completed = counts.completed,
            failed = counts.failed,
            never_ran = counts.owed(),
            "batch ended"
        );
    }
    Ok(())
}

/// The lanes that a batch which was cancelled before its admission would have opened: its rows are owed like those of
/// any other batch. None if the batch was admitted, or if it would have been refused.
async fn never_admitted<S: Storage>(
    shared: &DaemonCore<S>,
    items: &Items<BatchId>,
    batch: &Batch,
) -> Result<Vec<NewLane>, StorageError> {
    if batch.milestones.in_progress_at.is_some() {
        return Ok(Vec::new());
    }
    match validated(shared, batch).await {
        Ok(input) => Ok(input.map_or_else(|_| Vec::new(), |input| input.lanes)),
        Err(error) if is_hopeless(&error, items.failing_for(batch.id), batch, shared.clock.now()) => {
            let error = chain(&error);
            tracing::error!(batch_id = %batch.id, error, "a batch ends without lines: its rows cannot be counted");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Why rows of a batch that ends have not run. A batch that owes rows and is finalized before its window has closed was
/// given up. Its rows count as failed, so that the batch is `completed` with a line for each. It is not `expired`: its
/// window is open, and a client that sends the same file again would not fare better.
fn why(batch: &Batch) -> NeverRan {
    match batch.status {
        BatchStatus::Cancelling => NeverRan::Cancelled,
        _ if batch.milestones.finalizing_at.is_some_and(|at| at < batch.expires_at) => NeverRan::InputUnavailable,
        _ => NeverRan::Expired,
    }
}

/// Writes the lines of the rows that have none. The batch is fenced, so the ledger does not change meanwhile.
async fn write_owed<S: Storage>(
    shared: &DaemonCore<S>,
    items: &Items<BatchId>,
    batch: &Batch,
    counts: Counts,
    why: NeverRan,
) -> Result<RecordedPart, DutyError> {
    let recorded = shared.storage.recorded_rows(batch.id).await?;
    let owed = Owed { batch: batch.id, total: u32::try_from(counts.total)?, recorded, why };
    let error = match owed::write(shared, &owed).await {
        Ok(part) => return Ok(part),
        Err(OwedError::Output(error)) => return Err(error.into()),
        Err(OwedError::Input(error)) => error,
    };
    // Of a batch that was given up, the daemon that gave it up has tried to read the input for long enough.
    let tried_before = if why == NeverRan::InputUnavailable { GONE_AFTER } else { Duration::ZERO };
    let failing_for = items.failing_for(batch.id).max(tried_before);
    if !is_lost(shared, &*error, failing_for, batch.expires_at).await {
        return Err(error);
    }
    tracing::error!(batch_id = %batch.id, error = chain(&*error), "a batch ends without its input, which is lost");
    Ok(owed::write_without_input(shared, &owed).await?)
}

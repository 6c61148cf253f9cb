//! How far a batch is, and why it is no further.

use futures::future::try_join_all;

use crate::domain::batch::Batch;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::progress::{Progress, ProgressFacts};
use crate::domain::statistics::BatchStatistics;
use crate::domain::time::Clock;
use crate::storage::{Result, Storage};

/// Models that a reason is looked for in: those with the most rows left.
const MODELS: u32 = 16;

/// A batch, what was recorded of it, and the progress that follows.
pub struct ObservedBatch {
    /// The batch.
    pub batch: Batch,
    /// What was recorded of it.
    pub statistics: BatchStatistics,
    /// Its progress.
    pub progress: Progress,
}

/// Looks at a batch of an owner; `None` if there is none. Costs the same however many rows it has.
pub async fn observe_batch(
    storage: &dyn Storage,
    clock: &Clock,
    owner: &Owner,
    id: BatchId,
) -> Result<Option<ObservedBatch>> {
    let Some(batch) = storage.batch(owner, id).await? else { return Ok(None) };
    Ok(observe_batches(storage, clock, owner, vec![batch]).await?.pop())
}

/// Looks at batches that were read for their owner, in their order.
pub async fn observe_batches(
    storage: &dyn Storage,
    clock: &Clock,
    owner: &Owner,
    batches: Vec<Batch>,
) -> Result<Vec<ObservedBatch>> {
    let active: Vec<&Batch> = batches.iter().filter(|batch| !batch.status.is_terminal()).collect();
    let reports = if active.is_empty() { Vec::new() } else { storage.daemon_reports(owner, &active).await? };
    let observe = async |batch: Batch| {
        let statistics = storage.batch_statistics(owner, batch.id);
        let models = async {
            let is_over = batch.status.is_terminal();
            if is_over { Ok(Vec::new()) } else { storage.models_owed(owner, batch.id, MODELS).await }
        };
        let (statistics, models) = tokio::try_join!(statistics, models)?;
        let now = clock.now();
        let facts = ProgressFacts { batch: &batch, statistics: &statistics, models: &models, reports: &reports, now };
        let progress = Progress::of(&facts);
        Ok(ObservedBatch { batch, statistics, progress })
    };
    try_join_all(batches.into_iter().map(observe)).await
}

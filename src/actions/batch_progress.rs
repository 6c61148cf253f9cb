//! How far a batch is, and why it is no further.

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
    let (statistics, models, reports) = if batch.status.is_terminal() {
        (storage.batch_statistics(owner, id).await?, Vec::new(), Vec::new())
    } else {
        tokio::try_join!(
            storage.batch_statistics(owner, id),
            storage.models_owed(owner, id, MODELS),
            storage.daemon_reports(owner, id),
        )?
    };
    let facts =
        ProgressFacts { batch: &batch, statistics: &statistics, models: &models, reports: &reports, now: clock.now() };
    let progress = Progress::of(&facts);
    Ok(Some(ObservedBatch { batch, statistics, progress }))
}

//! How far a batch is, and why it is no further.

use futures::future::try_join_all;

use crate::domain::batch::{Batch, BatchStatus};
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::progress::{Progress, ProgressFacts};
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::statistics::BatchStatistics;
use crate::domain::time::Clock;
use crate::storage::{Result, Storage, queue};

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

/// Looks at batches.
pub struct BatchObserver<'a> {
    /// The batches, and what daemons tell.
    pub storage: &'a dyn Storage,
    /// The source of the time.
    pub clock: &'a Clock,
    /// What projects may use.
    pub projects: &'a ProjectLimitTable,
    /// The owner of the batches.
    pub owner: &'a Owner,
}

impl BatchObserver<'_> {
    /// Looks at a batch of the owner; `None` if there is none. Costs the same however many rows it has.
    ///
    /// # Errors
    /// The database failed.
    pub async fn observe(&self, id: BatchId) -> Result<Option<ObservedBatch>> {
        let Some(batch) = self.storage.batch(self.owner, id).await? else { return Ok(None) };
        Ok(self.observe_all(vec![batch]).await?.pop())
    }

    /// Looks at batches that were read for the owner, in their order.
    ///
    /// # Errors
    /// The database failed.
    pub async fn observe_all(&self, batches: Vec<Batch>) -> Result<Vec<ObservedBatch>> {
        let Self { storage, owner, .. } = *self;
        let active: Vec<&Batch> = batches.iter().filter(|batch| !batch.status.is_terminal()).collect();
        let reports = if active.is_empty() { Vec::new() } else { storage.daemon_reports(owner, &active).await? };
        let limits = self.projects.of(owner);
        let queue = if active.iter().any(|batch| batch.status == BatchStatus::Validating) {
            queue::waiting(storage, owner, &limits).await?
        } else {
            None
        };
        let observe = async |batch: Batch| {
            let (statistics, models) =
                tokio::try_join!(storage.batch_statistics(owner, batch.id), self.models_owed(&batch))?;
            let facts = ProgressFacts {
                batch: &batch,
                statistics: &statistics,
                models: &models,
                reports: &reports,
                queue: queue.as_ref(),
                now: self.clock.now(),
            };
            let progress = Progress::of(&facts);
            Ok(ObservedBatch { batch, statistics, progress })
        };
        try_join_all(batches.into_iter().map(observe)).await
    }

    /// The models of the rows that are left; none of a batch that has ended.
    async fn models_owed(&self, batch: &Batch) -> Result<Vec<String>> {
        if batch.status.is_terminal() {
            return Ok(Vec::new());
        }
        self.storage.models_owed(self.owner, batch.id, MODELS).await
    }
}

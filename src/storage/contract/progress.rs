//! What those who wait for a batch ask: its statistics, and what the daemons do.

use async_trait::async_trait;

use super::Result;
use crate::domain::activity::{DaemonActivity, DaemonReport};
use crate::domain::batch::Batch;
use crate::domain::ids::{BatchId, DaemonId};
use crate::domain::owner::Owner;
use crate::domain::statistics::BatchStatistics;

/// The progress of batches, and of the daemons that run them. Nothing else depends on it.
#[async_trait]
pub trait ProgressStore {
    /// What was recorded of a batch of the owner: empty as long as nothing was.
    async fn batch_statistics(&self, owner: &Owner, id: BatchId) -> Result<BatchStatistics>;

    /// The models of rows of the owner's batch that have no result, those with the most rows first, at most `limit`.
    /// Costs as much as the batch has lanes and leases, however many rows these have.
    async fn models_owed(&self, owner: &Owner, id: BatchId, limit: u32) -> Result<Vec<String>>;

    /// Tells what a daemon does. Nothing happens if it counts as dead.
    async fn tell_activity(&self, daemon: DaemonId, activity: &DaemonActivity) -> Result<()>;

    /// What each daemon told, and how long ago it beat. The state of the models and upstreams concerns every owner. Of
    /// the batches, only those given are named that are the owner's.
    async fn daemon_reports(&self, owner: &Owner, batches: &[&Batch]) -> Result<Vec<DaemonReport>>;

    /// The models of rows of the owner's batches in progress, in their order, at most `limit`.
    async fn models_in_progress(&self, owner: &Owner, limit: u32) -> Result<Vec<String>>;

    /// What each daemon told of the owner's batches, of models and of upstreams, and how long ago it beat. The models
    /// and the upstreams are those of all owners.
    async fn upstream_reports(&self, owner: &Owner) -> Result<Vec<DaemonReport>>;
}

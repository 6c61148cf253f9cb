//! What projects use of what they may.

use async_trait::async_trait;

use super::Result;
use crate::domain::batch::Batch;
use crate::domain::owner::Owner;
use crate::domain::project_limits::QueuedInput;
use crate::domain::time::Timestamp;

/// What is counted against the limits of a project.
#[async_trait]
pub trait ProjectStore {
    /// The rows without a result of the owner's batches in progress, and the bytes of their lines, of `limit` batches
    /// at most. Costs as much as there are batches, however many rows they have.
    async fn queued_input(&self, owner: &Owner, limit: u32) -> Result<QueuedInput>;

    /// The batch of the owner that waits for validation and was created first. Rows that cannot be read are left out.
    async fn first_to_admit(&self, owner: &Owner) -> Result<Option<Batch>>;

    /// The bytes of the owner's files that are neither deleted nor expired, and of the parts of its pending uploads.
    async fn stored_bytes(&self, owner: &Owner, now: Timestamp) -> Result<u64>;
}

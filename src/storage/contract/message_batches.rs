//! Batches as Anthropic's Message Batches has them: those that were made there, until they are deleted there.

use async_trait::async_trait;

use super::Result;
use crate::domain::batch::Batch;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::page::{Order, Page};
use crate::domain::time::Timestamp;

/// Message batches. All other methods have them too, as they have every batch.
#[async_trait]
pub trait MessageBatchStore {
    /// A message batch of the owner.
    async fn message_batch(&self, owner: &Owner, id: BatchId) -> Result<Option<Batch>>;

    /// The owner's message batches on one side of an id, which need not be there: the older ones, newest first, or the
    /// newer ones, oldest first. Without an id, all of them. Rows that cannot be read are left out, as if they were not
    /// there.
    async fn message_batches(
        &self,
        owner: &Owner,
        order: Order,
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Page<Batch>>;

    /// Deletes a message batch of the owner that has ended, with its input and its results. The batch stays among those
    /// of OpenAI's API. False if it was not there, or has not ended.
    async fn delete_message_batch(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<bool>;
}

//! Message batches: reading and deleting them.

use async_trait::async_trait;
use uuid::Uuid;

use super::readable::Gathered;
use super::{SqlStorage, in_write, on_reader};
use crate::domain::batch::Batch;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::page::{Order, Page};
use crate::domain::time::Timestamp;
use crate::storage::{MessageBatchStore, Result};

#[async_trait]
impl MessageBatchStore for SqlStorage {
    async fn message_batch(&self, owner: &Owner, id: BatchId) -> Result<Option<Batch>> {
        let row = on_reader!(self.db, message_batches::batch(owner, id))?;
        row.map(Batch::try_from).transpose()
    }

    async fn message_batches(
        &self,
        owner: &Owner,
        order: Order,
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Page<Batch>> {
        let start = match order {
            Order::Descending => Uuid::max(),
            Order::Ascending => Uuid::nil(),
        };
        let mut gathered = Gathered::with_limit(limit);
        let mut next = Some(after.map_or(start, |after| after.0));
        while let Some(after) = next {
            let rows = on_reader!(self.db, message_batches::page(owner, order, after, gathered.missing()))?;
            next = gathered.take(rows);
        }
        Ok(gathered.page())
    }

    async fn delete_message_batch(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<bool> {
        in_write!(self.db, message_batches::delete(owner, id, now))
    }
}

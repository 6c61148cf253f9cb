//! What is kept of batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{NewFile, Result, WorkPage};
use crate::domain::batch::{Batch, BatchError, BatchStatus, Counts, NewBatch};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, BlobId};
use crate::domain::owner::Owner;
use crate::domain::page::{Page, PageRequest};
use crate::domain::report::NewLane;
use crate::domain::time::Timestamp;

/// What is needed to run rows of a batch.
#[derive(Debug, Clone)]
pub struct BatchInput {
    /// The owner of the batch, who owns the input file too.
    pub owner: Owner,
    /// The endpoint of the rows.
    pub endpoint: BatchEndpoint,
    /// The blob of the input file's row index.
    pub index: BlobId,
    /// The parts of the input file.
    pub parts: Vec<FilePart>,
    /// The batch's metadata.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// When the batch was created.
    pub created_at: Timestamp,
    /// When the batch's window closes.
    pub expires_at: Timestamp,
    /// Whether any row of the batch was completed when this was read.
    pub has_completed: bool,
}

/// The rows of several batches in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowsInProgress {
    /// How many batches these are.
    pub batches: u64,
    /// Their rows together.
    pub counts: Counts,
    /// When the first of them was created that has rows without a result.
    pub oldest_created_at: Option<Timestamp>,
}

/// Batches, from creation until nothing is left to do for them.
#[async_trait]
pub trait BatchStore {
    /// Creates a batch, or returns the one that the owner made with the same idempotency key. None, and nothing is
    /// done, if the owner has used the key for something else.
    async fn create_batch(&self, owner: &Owner, new: &NewBatch, now: Timestamp) -> Result<Option<Batch>>;

    /// Creates a batch together with its input file, which `new` names. The key of the file is that of the request.
    /// None, and nothing is done, if the owner has used the key before.
    async fn create_batch_with(
        &self,
        owner: &Owner,
        input: &NewFile,
        new: &NewBatch,
        now: Timestamp,
    ) -> Result<Option<Batch>>;

    /// A batch of the owner.
    async fn batch(&self, owner: &Owner, id: BatchId) -> Result<Option<Batch>>;

    /// A batch of any owner. For daemons, never for a client.
    async fn any_batch(&self, id: BatchId) -> Result<Option<Batch>>;

    /// The owner's batches by creation time. Rows that cannot be read are left out, as if they were not there.
    async fn batches(&self, owner: &Owner, page: &PageRequest<BatchId>) -> Result<Page<Batch>>;

    /// The owner's batches that have one of these statuses, newest first, from behind `after`, which need not be there.
    /// Rows that cannot be read are left out, as if they were not there.
    async fn batches_with(
        &self,
        owner: &Owner,
        statuses: &[BatchStatus],
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Page<Batch>>;

    /// The owner's batches in progress whose windows close first. Rows that cannot be read are left out.
    async fn batches_closing_first(&self, owner: &Owner, limit: u32) -> Result<Vec<Batch>>;

    /// The rows of the owner's batches in progress, of `limit` batches at most. Costs as much as there are batches,
    /// however many rows they have.
    async fn rows_in_progress(&self, owner: &Owner, limit: u32) -> Result<RowsInProgress>;

    /// Calls a batch of the owner off, if it has not ended and is not called off already. Returns it as it is then.
    async fn cancel_batch(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<Option<Batch>>;

    /// The batch that the owner made with an idempotency key.
    async fn batch_of_key(&self, owner: &Owner, key: &str) -> Result<Option<Batch>>;

    /// Pauses a batch of the owner at its owner's request, if rows of it start and it is not paused already. Returns it
    /// as it is then.
    async fn pause_batch(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<Option<Batch>>;

    /// Lets the rows of a paused batch of the owner start again: all, if it has paused after those that run first.
    /// Returns it as it is then.
    async fn resume_batch(&self, owner: &Owner, id: BatchId) -> Result<Option<Batch>>;

    /// Batches that wait for validation, oldest deadline first, from behind `after`.
    async fn batches_to_admit(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>>;

    /// Opens a batch's lanes and moves it to `in_progress`. False if it was not waiting for validation.
    async fn admit_batch(&self, id: BatchId, lanes: &[NewLane], now: Timestamp) -> Result<bool>;

    /// Fails a batch that waits for validation. False if it was not waiting.
    async fn refuse_batch(&self, id: BatchId, errors: &[BatchError], now: Timestamp) -> Result<bool>;

    /// Moves batches in progress whose window has closed to `finalizing`, up to `limit` of them. Returns how many.
    async fn expire_batches(&self, now: Timestamp, limit: u32) -> Result<u64>;

    /// Moves a batch in progress to `finalizing` although its window has not closed, because its rows cannot be read
    /// any more. False if it was not in progress.
    async fn give_up_batch(&self, id: BatchId, now: Timestamp) -> Result<bool>;

    /// Batches in `finalizing` or `cancelling`, oldest deadline first, from behind `after`.
    async fn batches_to_finish(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>>;

    /// The input of a batch of the owner; `None` if the batch or its input is not there.
    async fn batch_input(&self, owner: &Owner, id: BatchId) -> Result<Option<BatchInput>>;

    /// The input of a batch of any owner; `None` if the batch is not there, or its owner does not have the input. For
    /// daemons, never for a client.
    async fn any_batch_input(&self, id: BatchId) -> Result<Option<BatchInput>>;
}

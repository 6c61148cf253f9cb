//! Batches: creation, reading, and the moves between statuses that need no ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::files::json;
use super::readable::{Gathered, readable};
use super::{SqlStorage, corrupt, in_write, on_reader, owner_of, to_u64};
use crate::domain::batch::{Batch, BatchError, BatchRetry, BatchStatus, Counts, Milestones, NewBatch};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::ids::{BatchId, FileId};
use crate::domain::owner::Owner;
use crate::domain::page::{Order, Page, PageRequest};
use crate::domain::pause::Pause;
use crate::domain::report::NewLane;
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;
use crate::storage::{BatchInput, BatchStore, FileStore as _, NewFile, Result, RowsInProgress, StorageError, WorkPage};

/// The columns of [`BatchRow`].
macro_rules! batch_columns {
    () => {
        "id, owner, input_file_id, endpoint, completion_window, status, created_at, expires_at, in_progress_at, \
         finalizing_at, completed_at, failed_at, expired_at, cancelling_at, cancelled_at, model, total, completed, \
         failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens, metadata, errors, \
         output_file_id, error_file_id, output_expires_after, paused_at, pause_reason, retry_of, retry_options, \
         webhook_url"
    };
}

pub(super) use batch_columns;

#[derive(sqlx::FromRow)]
pub(super) struct BatchRow {
    id: Uuid,
    owner: String,
    input_file_id: String,
    endpoint: String,
    completion_window: String,
    status: String,
    created_at: i64,
    expires_at: i64,
    in_progress_at: Option<i64>,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    model: Option<String>,
    total: i64,
    completed: i64,
    failed: i64,
    input_tokens: i64,
    cached_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    total_tokens: i64,
    metadata: Option<String>,
    errors: Option<String>,
    output_file_id: Uuid,
    error_file_id: Uuid,
    output_expires_after: Option<i64>,
    paused_at: Option<i64>,
    pause_reason: Option<String>,
    retry_of: Option<Uuid>,
    retry_options: Option<String>,
    webhook_url: Option<String>,
}

impl TryFrom<BatchRow> for Batch {
    type Error = StorageError;

    fn try_from(row: BatchRow) -> Result<Self> {
        let errors = row.errors.as_deref().map_or(Ok(Vec::new()), serde_json::from_str);
        let status = BatchStatus::parse(&row.status).ok_or_else(|| corrupt("batches", "status", BatchId(row.id)))?;
        let (pause, retry) = (row.pause(status)?, row.retry()?);
        Ok(Self {
            id: BatchId(row.id),
            owner: owner_of(&row.owner, "batches", BatchId(row.id))?,
            input_file_id: row.input_file_id,
            endpoint: BatchEndpoint::named(&row.endpoint)
                .ok_or_else(|| corrupt("batches", "endpoint", BatchId(row.id)))?,
            completion_window: row.completion_window,
            status,
            created_at: Timestamp(row.created_at),
            expires_at: Timestamp(row.expires_at),
            milestones: Milestones {
                in_progress_at: row.in_progress_at.map(Timestamp),
                finalizing_at: row.finalizing_at.map(Timestamp),
                completed_at: row.completed_at.map(Timestamp),
                failed_at: row.failed_at.map(Timestamp),
                expired_at: row.expired_at.map(Timestamp),
                cancelling_at: row.cancelling_at.map(Timestamp),
                cancelled_at: row.cancelled_at.map(Timestamp),
            },
            model: row.model,
            counts: Counts { total: to_u64(row.total), completed: to_u64(row.completed), failed: to_u64(row.failed) },
            usage: Usage {
                input_tokens: to_u64(row.input_tokens),
                cached_tokens: to_u64(row.cached_tokens),
                output_tokens: to_u64(row.output_tokens),
                reasoning_tokens: to_u64(row.reasoning_tokens),
                total_tokens: to_u64(row.total_tokens),
            },
            metadata: row.metadata,
            errors: errors.map_err(|_| corrupt("batches", "errors", BatchId(row.id)))?,
            output_file_id: FileId(row.output_file_id),
            error_file_id: FileId(row.error_file_id),
            output_expires_after: row.output_expires_after.map(|millis| Duration::from_millis(to_u64(millis))),
            pause,
            retry,
            webhook_url: row.webhook_url,
        })
    }
}

impl BatchRow {
    /// The columns of a pause stay as they are when the batch ends, which ends its pause.
    fn pause(&self, status: BatchStatus) -> Result<Option<Pause>> {
        let Some(since) = self.paused_at.filter(|_| status.starts_rows()) else { return Ok(None) };
        let cause = self.json("pause_reason", self.pause_reason.as_deref())?;
        Ok(Some(Pause { since: Timestamp(since), cause }))
    }

    fn retry(&self) -> Result<Option<BatchRetry>> {
        let Some(of) = self.retry_of else { return Ok(None) };
        let options = self.json("retry_options", self.retry_options.as_deref())?;
        Ok(Some(BatchRetry { of: BatchId(of), options }))
    }

    /// What a column has as JSON.
    fn json<T: DeserializeOwned>(&self, column: &'static str, text: Option<&str>) -> Result<T> {
        let read = text.and_then(|text| serde_json::from_str(text).ok());
        read.ok_or_else(|| corrupt("batches", column, BatchId(self.id)))
    }
}

/// What a batch's row says of its input.
#[derive(sqlx::FromRow)]
pub(super) struct InputRow {
    owner: String,
    endpoint: String,
    input_file_id: String,
    metadata: Option<String>,
    created_at: i64,
    expires_at: i64,
    completed: i64,
}

/// Sums over batches in progress.
#[derive(sqlx::FromRow)]
pub(super) struct RowSums {
    batches: i64,
    total: i64,
    completed: i64,
    failed: i64,
    oldest_created_at: Option<i64>,
}

#[async_trait]
impl BatchStore for SqlStorage {
    async fn create_batch(&self, owner: &Owner, new: &NewBatch, now: Timestamp) -> Result<Option<Batch>> {
        if let Some(created) = in_write!(self.db, batches::create(owner, new, now))? {
            return created.try_into().map(Some);
        }
        self.batch_of_key(owner, new.idempotency_key.as_deref().unwrap_or_default()).await
    }

    async fn create_batch_with(
        &self,
        owner: &Owner,
        input: &NewFile,
        new: &NewBatch,
        now: Timestamp,
    ) -> Result<Option<Batch>> {
        let report = input.indexed.as_ref().map(|indexed| json(&indexed.report));
        let row = in_write!(self.db, batches::create_with(owner, (input, report.as_deref()), new, now))?;
        row.map(Batch::try_from).transpose()
    }

    async fn batch_of_key(&self, owner: &Owner, key: &str) -> Result<Option<Batch>> {
        let row = on_reader!(self.db, batches::by_key(owner, key))?;
        row.map(Batch::try_from).transpose()
    }

    async fn batch(&self, owner: &Owner, id: BatchId) -> Result<Option<Batch>> {
        let row = on_reader!(self.db, batches::batch(owner, id))?;
        row.map(Batch::try_from).transpose()
    }

    async fn any_batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let row = on_reader!(self.db, batches::any_batch(id))?;
        row.map(Batch::try_from).transpose()
    }

    async fn batches(&self, owner: &Owner, page: &PageRequest<BatchId>) -> Result<Page<Batch>> {
        if let Some(after) = page.after
            && !on_reader!(self.db, batches::exists(owner, after))?
        {
            return Ok(Page::empty());
        }
        let start = match page.order {
            Order::Descending => Uuid::max(),
            Order::Ascending => Uuid::nil(),
        };
        let mut gathered = Gathered::with_limit(page.limit);
        let mut next = Some(page.after.map_or(start, |after| after.0));
        while let Some(after) = next {
            let rows = on_reader!(self.db, batches::page(owner, page.order, after, gathered.missing()))?;
            next = gathered.take(rows);
        }
        Ok(gathered.page())
    }

    async fn batches_with(
        &self,
        owner: &Owner,
        statuses: &[BatchStatus],
        after: Option<BatchId>,
        limit: u32,
    ) -> Result<Page<Batch>> {
        let mut batches = Vec::new();
        for status in statuses {
            let mut gathered = Gathered::with_limit(limit);
            let mut next = Some(after.map_or(Uuid::max(), |after| after.0));
            while let Some(after) = next {
                let rows = on_reader!(self.db, batches::with_status(owner, *status, after, gathered.missing()))?;
                next = gathered.take(rows);
            }
            batches.extend(gathered.into_found());
        }
        batches.sort_by_key(|batch: &Batch| std::cmp::Reverse(batch.id));
        Ok(Page::cut(batches, limit))
    }

    async fn batches_closing_first(&self, owner: &Owner, limit: u32) -> Result<Vec<Batch>> {
        let rows = on_reader!(self.db, batches::closing_first(owner, limit))?;
        Ok(readable(rows.into_iter().map(|row| row.read)))
    }

    async fn rows_in_progress(&self, owner: &Owner, limit: u32) -> Result<RowsInProgress> {
        let sums = on_reader!(self.db, batches::rows_in_progress(owner, limit))?;
        let [batches, total, completed, failed] = [sums.batches, sums.total, sums.completed, sums.failed].map(to_u64);
        let oldest_created_at = sums.oldest_created_at.map(Timestamp);
        Ok(RowsInProgress { batches, counts: Counts { total, completed, failed }, oldest_created_at })
    }

    async fn cancel_batch(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<Option<Batch>> {
        let row = in_write!(self.db, batches::cancel(owner, id, now))?;
        row.map(Batch::try_from).transpose()
    }

    async fn pause_batch(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<Option<Batch>> {
        let row = in_write!(self.db, steering::pause(owner, id, now))?;
        row.map(Batch::try_from).transpose()
    }

    async fn resume_batch(&self, owner: &Owner, id: BatchId) -> Result<Option<Batch>> {
        let row = in_write!(self.db, steering::resume(owner, id))?;
        row.map(Batch::try_from).transpose()
    }

    async fn batches_to_admit(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>> {
        Ok(WorkPage::of(on_reader!(self.db, batches::to_admit(after, limit))?, limit))
    }

    async fn admit_batch(&self, id: BatchId, lanes: &[NewLane], now: Timestamp) -> Result<bool> {
        in_write!(self.db, batches::admit(id, lanes, now))
    }

    async fn refuse_batch(&self, id: BatchId, errors: &[BatchError], now: Timestamp) -> Result<bool> {
        let errors = json(&errors);
        in_write!(self.db, batches::refuse(id, &errors, &self.subscriptions, now))
    }

    async fn expire_batches(&self, now: Timestamp, limit: u32) -> Result<u64> {
        in_write!(self.db, batches::expire_overdue(now, limit))
    }

    async fn give_up_batch(&self, id: BatchId, now: Timestamp) -> Result<bool> {
        in_write!(self.db, batches::give_up(id, now))
    }

    async fn batches_to_finish(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>> {
        Ok(WorkPage::of(on_reader!(self.db, batches::to_finish(after, limit))?, limit))
    }

    async fn batch_input(&self, owner: &Owner, id: BatchId) -> Result<Option<BatchInput>> {
        let Some(row) = on_reader!(self.db, batches::input(owner, id))? else { return Ok(None) };
        self.input_of(id, row).await
    }

    async fn any_batch_input(&self, id: BatchId) -> Result<Option<BatchInput>> {
        let Some(row) = on_reader!(self.db, batches::any_input(id))? else { return Ok(None) };
        self.input_of(id, row).await
    }
}

impl SqlStorage {
    /// What a batch's row names as its input; `None` if the batch's owner has no such file.
    async fn input_of(&self, id: BatchId, batch: InputRow) -> Result<Option<BatchInput>> {
        let owner = owner_of(&batch.owner, "batches", id)?;
        let Some(file) = FileId::parse(&batch.input_file_id) else { return Ok(None) };
        let Some(index) = on_reader!(self.db, files::index(&owner, file))? else { return Ok(None) };
        let endpoint = BatchEndpoint::named(&batch.endpoint).ok_or_else(|| corrupt("batches", "endpoint", id))?;
        let parts = self.file_parts(&owner, file).await?;
        let metadata = batch.metadata.map_or(Ok(BTreeMap::new()), |json| serde_json::from_str(&json));
        let metadata = Arc::new(metadata.map_err(|_| corrupt("batches", "metadata", id))?);
        let [created_at, expires_at] = [batch.created_at, batch.expires_at].map(Timestamp);
        let has_completed = batch.completed > 0;
        Ok(Some(BatchInput { owner, endpoint, index, parts, metadata, created_at, expires_at, has_completed }))
    }
}

//! Batches: creation, reading, and the moves between statuses that need no ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row;
use uuid::Uuid;

use super::dialect::{Announce as _, query, query_as, query_scalar};
use super::files::json;
use super::readable::{Gathered, Placed, read_row};
use super::{End, SqlStorage, corrupt, in_write, on_reader, to_i64, to_u64};
use crate::domain::batch::{Batch, BatchError, BatchStatus, Counts, Milestones, NewBatch};
use crate::domain::endpoint::Endpoint;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, BlobId, FileId};
use crate::domain::page::{Order, Page, PageRequest};
use crate::domain::report::{NewLane, model_of};
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;
use crate::storage::{BatchInput, BatchStore, FileStore as _, Result, StorageError, WorkPage};

macro_rules! batch_columns {
    () => {
        "id, input_file_id, endpoint, completion_window, status, created_at, expires_at, in_progress_at, \
         finalizing_at, completed_at, failed_at, expired_at, cancelling_at, cancelled_at, model, total, completed, \
         failed, input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens, metadata, errors, \
         output_file_id, error_file_id, output_expires_after"
    };
}

#[derive(sqlx::FromRow)]
struct BatchRow {
    id: Uuid,
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
}

impl TryFrom<BatchRow> for Batch {
    type Error = StorageError;

    fn try_from(row: BatchRow) -> Result<Self> {
        let errors = row.errors.as_deref().map_or(Ok(Vec::new()), serde_json::from_str);
        Ok(Self {
            id: BatchId(row.id),
            input_file_id: row.input_file_id,
            endpoint: Endpoint::parse(&row.endpoint).ok_or_else(|| corrupt("batches", "endpoint", BatchId(row.id)))?,
            completion_window: row.completion_window,
            status: BatchStatus::parse(&row.status).ok_or_else(|| corrupt("batches", "status", BatchId(row.id)))?,
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
        })
    }
}

/// A row that was fetched, of either database, with its place: `None` if what makes the place cannot be read.
macro_rules! placed {
    ($row:ident, |$id:ident| $place:expr) => {{
        let id: Option<Uuid> = Row::try_get($row, "id").ok();
        let name = id.map(|id| BatchId(id).to_string());
        let place = id.and_then(|$id| Some($place));
        Placed { place, read: read_row::<_, BatchRow, Batch>("batches", name, $row) }
    }};
}

// A second creation with the same key changes nothing, and finds the first by the statement after it.
const CREATE: &str = concat!(
    "INSERT INTO batches (id, input_file_id, endpoint, completion_window, status, created_at, expires_at, metadata,
                          output_file_id, error_file_id, output_expires_after, idempotency_key)
     VALUES ($1, $2, $3, $4, 'validating', $5, $6, $7, $8, $9, $10, $11)
     ON CONFLICT (idempotency_key) DO NOTHING
     RETURNING ",
    batch_columns!()
);

const BY_KEY: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE idempotency_key = $1");
const BATCH: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE id = $1");

// Ids are made in the order of creation, so that they are the sort key too.
const NEWER_FIRST: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE id < $1 ORDER BY id DESC LIMIT $2");
const OLDER_FIRST: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE id > $1 ORDER BY id LIMIT $2");
const EXISTS: &str = "SELECT id FROM batches WHERE id = $1";

// A batch called off before validation was over has nothing to stop: it is cancelled by whoever finishes batches.
const CANCEL: &str = "
    UPDATE batches
    SET status = 'cancelling', cancelling_at = $2, finalizing_at = NULL
    WHERE id = $1 AND status IN ('validating', 'in_progress', 'finalizing')";

const TO_ADMIT: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE status = 'validating' AND (expires_at, id) > ($1, $2) ORDER BY expires_at, id LIMIT $3"
);

const ADMIT: &str = "
    UPDATE batches
    SET status = 'in_progress', in_progress_at = $2, total = $3, model = $4
    WHERE id = $1 AND status = 'validating'";

const OPEN_LANE: &str = "
    INSERT INTO lanes (batch_id, no, model, first, last, next)
    VALUES ($1, $2, $3, $4, $5, $4)";

const REFUSE: &str = "
    UPDATE batches
    SET status = 'failed', failed_at = $2, errors = $3
    WHERE id = $1 AND status = 'validating'";

const OVERDUE: &str = "
    SELECT id
    FROM batches
    WHERE status = 'in_progress' AND expires_at <= $1
    ORDER BY expires_at
    LIMIT $2";

const EXPIRE: &str = "
    UPDATE batches
    SET status = 'finalizing', finalizing_at = $2
    WHERE id = $1 AND status = 'in_progress'";

const TO_FINISH: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches
     WHERE status IN ('finalizing', 'cancelling') AND (expires_at, id) > ($1, $2)
     ORDER BY expires_at, id
     LIMIT $3"
);

const INPUT: &str = "SELECT endpoint, input_file_id, metadata FROM batches WHERE id = $1";
const INDEX: &str = "SELECT index_blob FROM files WHERE id = $1 AND index_blob IS NOT NULL";

#[async_trait]
impl BatchStore for SqlStorage {
    async fn create_batch(&self, new: &NewBatch, now: Timestamp) -> Result<Batch> {
        let row: Option<BatchRow> = in_write!(self.db, tx => {
            let created = query_as(CREATE)
                .bind(BatchId::new().0)
                .bind(&new.input_file_id)
                .bind(new.endpoint.as_str())
                .bind(&new.window.text)
                .bind(now.0)
                .bind(now.plus(new.window.length).0)
                .bind(&new.metadata)
                .bind(FileId::new().0)
                .bind(FileId::new().0)
                .bind(new.output_expires_after.map(|kept| Timestamp(0).plus(kept).0))
                .bind(&new.idempotency_key)
                .fetch_optional(&mut *tx)
                .await?;
            tx.announce().await?;
            End::Commit(created)
        })?;
        let row: BatchRow = match row {
            Some(row) => row,
            None => on_reader!(self.db, conn => {
                Ok(query_as(BY_KEY).bind(&new.idempotency_key).fetch_one(&mut *conn).await?)
            })?,
        };
        row.try_into()
    }

    async fn batch(&self, id: BatchId) -> Result<Option<Batch>> {
        let row: Option<BatchRow> = on_reader!(self.db, conn => {
            Ok(query_as(BATCH).bind(id.0).fetch_optional(&mut *conn).await?)
        })?;
        row.map(Batch::try_from).transpose()
    }

    async fn batches(&self, page: &PageRequest<BatchId>) -> Result<Page<Batch>> {
        let (statement, start) = match page.order {
            Order::Descending => (NEWER_FIRST, Uuid::max()),
            Order::Ascending => (OLDER_FIRST, Uuid::nil()),
        };
        if let Some(after) = page.after {
            let exists: Option<Uuid> = on_reader!(self.db, conn => {
                Ok(query_scalar(EXISTS).bind(after.0).fetch_optional(&mut *conn).await?)
            })?;
            if exists.is_none() {
                return Ok(Page::empty());
            }
        }
        let mut gathered = Gathered::with_limit(page.limit);
        let mut next = Some(page.after.map_or(start, |after| after.0));
        while let Some(after) = next {
            let rows: Vec<Placed<Uuid, Batch>> = on_reader!(self.db, conn => {
                let rows = query(statement).bind(after).bind(gathered.missing()).fetch_all(&mut *conn).await?;
                Ok(rows.iter().map(|row| placed!(row, |id| id)).collect())
            })?;
            next = gathered.take(rows);
        }
        Ok(gathered.page())
    }

    async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<Option<Batch>> {
        let row: Option<BatchRow> = in_write!(self.db, tx => {
            query(CANCEL).bind(id.0).bind(now.0).execute(&mut *tx).await?;
            tx.announce().await?;
            End::Commit(query_as(BATCH).bind(id.0).fetch_optional(&mut *tx).await?)
        })?;
        row.map(Batch::try_from).transpose()
    }

    async fn batches_to_admit(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>> {
        self.waiting(TO_ADMIT, after, limit).await
    }

    async fn admit_batch(&self, id: BatchId, lanes: &[NewLane], now: Timestamp) -> Result<bool> {
        let total: u64 = lanes.iter().map(NewLane::rows).sum();
        let model = model_of(lanes);
        in_write!(self.db, tx => {
            let admitted = query(ADMIT)
                .bind(id.0)
                .bind(now.0)
                .bind(to_i64(total))
                .bind(model)
                .execute(&mut *tx)
                .await?
                .rows_affected() == 1;
            if admitted {
                for (no, lane) in (0_i64..).zip(lanes) {
                    query(OPEN_LANE)
                        .bind(id.0)
                        .bind(no)
                        .bind(&lane.model)
                        .bind(i64::from(lane.first))
                        .bind(i64::from(lane.last))
                        .execute(&mut *tx)
                        .await?;
                }
                tx.announce().await?;
            }
            End::Commit(admitted)
        })
    }

    async fn refuse_batch(&self, id: BatchId, errors: &[BatchError], now: Timestamp) -> Result<bool> {
        let errors = json(&errors);
        in_write!(self.db, tx => {
            let refused = query(REFUSE).bind(id.0).bind(now.0).bind(&errors).execute(&mut *tx).await?;
            End::Commit(refused.rows_affected() == 1)
        })
    }

    async fn expire_batches(&self, now: Timestamp, limit: u32) -> Result<u64> {
        in_write!(self.db, tx => {
            let mut overdue: Vec<Uuid> =
                query_scalar(OVERDUE).bind(now.0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
            // Locked one by one in the order of their ids, as the ledger does, so that neither waits for the other.
            overdue.sort_unstable();
            let mut expired = 0;
            for id in overdue {
                expired += query(EXPIRE).bind(id).bind(now.0).execute(&mut *tx).await?.rows_affected();
            }
            End::Commit(expired)
        })
    }

    async fn give_up_batch(&self, id: BatchId, now: Timestamp) -> Result<bool> {
        in_write!(self.db, tx => {
            let given_up = query(EXPIRE).bind(id.0).bind(now.0).execute(&mut *tx).await?.rows_affected() == 1;
            tx.announce().await?;
            End::Commit(given_up)
        })
    }

    async fn batches_to_finish(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>> {
        self.waiting(TO_FINISH, after, limit).await
    }

    async fn batch_input(&self, id: BatchId) -> Result<Option<BatchInput>> {
        let batch: Option<(String, String, Option<String>)> = on_reader!(self.db, conn => {
            Ok(query_as(INPUT).bind(id.0).fetch_optional(&mut *conn).await?)
        })?;
        let Some((endpoint, input_file, metadata)) = batch else { return Ok(None) };
        let Some(file) = FileId::parse(&input_file) else { return Ok(None) };
        let index: Option<Uuid> = on_reader!(self.db, conn => {
            Ok(query_scalar(INDEX).bind(file.0).fetch_optional(&mut *conn).await?)
        })?;
        let Some(index) = index else { return Ok(None) };
        let endpoint = Endpoint::parse(&endpoint).ok_or_else(|| corrupt("batches", "endpoint", id))?;
        let parts: Vec<FilePart> = self.file_parts(file).await?;
        let metadata = metadata.map_or(Ok(BTreeMap::new()), |json| serde_json::from_str(&json));
        let metadata = Arc::new(metadata.map_err(|_| corrupt("batches", "metadata", id))?);
        Ok(Some(BatchInput { endpoint, index: BlobId(index), parts, metadata }))
    }
}

impl SqlStorage {
    async fn waiting(
        &self,
        statement: &'static str,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>> {
        let (expires_at, id) = after.map_or((i64::MIN, Uuid::nil()), |(expires_at, id)| (expires_at.0, id.0));
        let rows: Vec<Placed<_, Batch>> = on_reader!(self.db, conn => {
            let rows =
                query(statement).bind(expires_at).bind(id).bind(i64::from(limit)).fetch_all(&mut *conn).await?;
            let placed = |row| placed!(row, |id| (Timestamp(Row::try_get(row, "expires_at").ok()?), BatchId(id)));
            Ok(rows.iter().map(placed).collect())
        })?;
        Ok(WorkPage::of(rows, limit))
    }
}

//! Batches: creation, reading, and the moves between statuses that need no ledger.

use sqlx::Row as _;
use uuid::Uuid;

use super::query::{announce, query, query_as, query_scalar};
use super::{Conn, Row, files, request_keys, webhooks};
use crate::domain::batch::{Batch, BatchStatus, NewBatch};
use crate::domain::canary::Canary;
use crate::domain::ids::{BatchId, FileId};
use crate::domain::owner::Owner;
use crate::domain::page::Order;
use crate::domain::report::{NewLane, model_of};
use crate::domain::time::Timestamp;
use crate::domain::webhook::Subscription;
use crate::storage::sql::batches::{BatchRow, InputRow, RowSums, batch_columns};
use crate::storage::sql::files::json;
use crate::storage::sql::readable::{Placed, read_row};
use crate::storage::sql::{End, to_i64};
use crate::storage::{NewFile, Result};

// A second creation with the same key changes nothing, and finds the first by the statement after it.
const CREATE: &str = concat!(
    "INSERT INTO batches (id, owner, input_file_id, endpoint, completion_window, status, created_at, expires_at,
                          metadata, output_file_id, error_file_id, output_expires_after, idempotency_key, canary,
                          retry_of, retry_options, webhook_url, webhook_secret, api)
     VALUES ($1, $2, $3, $4, $5, 'validating', $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
     ON CONFLICT (owner, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
     RETURNING ",
    batch_columns!()
);

const BY_KEY: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE owner = $1 AND idempotency_key = $2");
const BATCH: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE owner = $1 AND id = $2");
const ANY_BATCH: &str = concat!("SELECT ", batch_columns!(), " FROM batches WHERE id = $1");

// Ids are made in the order of creation, so that they are the sort key too.
const NEWER_FIRST: &str =
    concat!("SELECT ", batch_columns!(), " FROM batches WHERE owner = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
const OLDER_FIRST: &str =
    concat!("SELECT ", batch_columns!(), " FROM batches WHERE owner = $1 AND id > $2 ORDER BY id LIMIT $3");
const EXISTS: &str = "SELECT id FROM batches WHERE owner = $1 AND id = $2";

const WITH_STATUS: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE owner = $1 AND status = $2 AND id < $3 ORDER BY id DESC LIMIT $4"
);

const CLOSING_FIRST: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE owner = $1 AND status = 'in_progress' ORDER BY expires_at LIMIT $2"
);

// The limit bounds what is read, however many batches are in progress.
const ROWS_IN_PROGRESS: &str = "
    SELECT COUNT(*) AS batches,
           CAST(COALESCE(SUM(total), 0) AS BIGINT) AS total,
           CAST(COALESCE(SUM(completed), 0) AS BIGINT) AS completed,
           CAST(COALESCE(SUM(failed), 0) AS BIGINT) AS failed,
           MIN(CASE WHEN completed + failed < total THEN created_at END) AS oldest_created_at
    FROM (
        SELECT total, completed, failed, created_at
        FROM batches
        WHERE owner = $1 AND status = 'in_progress'
        ORDER BY expires_at
        LIMIT $2
    ) AS in_progress";

// A batch called off before validation was over has nothing to stop: the one who finishes it also counts its rows.
const CANCEL: &str = "
    UPDATE batches
    SET status = 'cancelling', cancelling_at = $3, finalizing_at = NULL
    WHERE owner = $1 AND id = $2 AND status IN ('validating', 'in_progress', 'finalizing')";

const TO_ADMIT: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE status = 'validating' AND (expires_at, id) > ($1, $2) ORDER BY expires_at, id LIMIT $3"
);

const ADMIT: &str = "
    UPDATE batches
    SET status = 'in_progress', in_progress_at = $2, total = $3, model = $4
    WHERE id = $1 AND status = 'validating'
    RETURNING canary";

const OPEN_LANE: &str = "
    INSERT INTO lanes (batch_id, no, model, first, last, next, held_from)
    VALUES ($1, $2, $3, $4, $5, $4, $6)";

const REFUSE: &str = "
    UPDATE batches
    SET status = 'failed', failed_at = $2, errors = $3
    WHERE id = $1 AND status = 'validating'
    RETURNING id, status, owner, webhook_url, webhook_secret";

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

const INPUT: &str = "SELECT owner, endpoint, input_file_id, metadata, created_at, expires_at, completed
                     FROM batches WHERE owner = $1 AND id = $2";
const ANY_INPUT: &str = "SELECT owner, endpoint, input_file_id, metadata, created_at, expires_at, completed
                         FROM batches WHERE id = $1";

/// The batch that was created; `None` if the owner has used its key.
pub async fn create(tx: &mut Conn, owner: &Owner, new: &NewBatch, now: Timestamp) -> Result<End<Option<BatchRow>>> {
    let id = BatchId::new();
    let Some(created) = insert(tx, owner, id, new, now).await? else { return Ok(End::Rollback(None)) };
    if !request_keys::claim(tx, owner, new.request_key().as_ref(), &id.to_string(), now).await? {
        return Ok(End::Rollback(None));
    }
    announce(tx).await?;
    Ok(End::Commit(Some(created)))
}

/// The same together with the input file and its report as JSON; `None` also if the owner has used the file's key.
pub async fn create_with(
    tx: &mut Conn,
    owner: &Owner,
    (input, report): (&NewFile, Option<&str>),
    new: &NewBatch,
    now: Timestamp,
) -> Result<End<Option<BatchRow>>> {
    let id = BatchId::new();
    if !request_keys::claim(tx, owner, input.key.as_ref(), &id.to_string(), now).await? {
        return Ok(End::Rollback(None));
    }
    files::insert_whole(tx, owner, input, report).await?;
    let Some(created) = insert(tx, owner, id, new, now).await? else { return Ok(End::Rollback(None)) };
    announce(tx).await?;
    Ok(End::Commit(Some(created)))
}

async fn insert(tx: &mut Conn, owner: &Owner, id: BatchId, new: &NewBatch, now: Timestamp) -> Result<Option<BatchRow>> {
    let created = query_as(CREATE)
        .bind(id.0)
        .bind(owner.as_str())
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
        .bind(new.canary.map(|canary| canary.to_string()))
        .bind(new.retry.as_ref().map(|retry| retry.of.0))
        .bind(new.retry.as_ref().map(|retry| json(&retry.options)))
        .bind(new.webhook.as_ref().map(|webhook| &webhook.url))
        .bind(new.webhook.as_ref().map(|webhook| webhook.secret.reveal()))
        .bind(new.is_message_batch.then_some("messages"))
        .fetch_optional(tx)
        .await?;
    Ok(created)
}

pub async fn by_key(conn: &mut Conn, owner: &Owner, key: &str) -> Result<Option<BatchRow>> {
    Ok(query_as(BY_KEY).bind(owner.as_str()).bind(key).fetch_optional(conn).await?)
}

pub async fn batch(conn: &mut Conn, owner: &Owner, id: BatchId) -> Result<Option<BatchRow>> {
    Ok(query_as(BATCH).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?)
}

pub async fn any_batch(conn: &mut Conn, id: BatchId) -> Result<Option<BatchRow>> {
    Ok(query_as(ANY_BATCH).bind(id.0).fetch_optional(conn).await?)
}

pub async fn exists(conn: &mut Conn, owner: &Owner, id: BatchId) -> Result<bool> {
    let exists: Option<Uuid> = query_scalar(EXISTS).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?;
    Ok(exists.is_some())
}

pub async fn page(
    conn: &mut Conn,
    owner: &Owner,
    order: Order,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Placed<Uuid, Batch>>> {
    let statement = match order {
        Order::Descending => NEWER_FIRST,
        Order::Ascending => OLDER_FIRST,
    };
    page_by(conn, statement, owner, after, limit).await
}

/// A page of a list that goes by the ids of batches.
pub(super) async fn page_by(
    conn: &mut Conn,
    statement: &'static str,
    owner: &Owner,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Placed<Uuid, Batch>>> {
    let rows = query(statement).bind(owner.as_str()).bind(after).bind(limit).fetch_all(conn).await?;
    Ok(rows.iter().map(|row| placed(row, Some)).collect())
}

pub async fn with_status(
    conn: &mut Conn,
    owner: &Owner,
    status: BatchStatus,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Placed<Uuid, Batch>>> {
    let rows = query(WITH_STATUS).bind(owner.as_str()).bind(status.as_str()).bind(after).bind(limit);
    Ok(rows.fetch_all(conn).await?.iter().map(|row| placed(row, Some)).collect())
}

pub async fn closing_first(conn: &mut Conn, owner: &Owner, limit: u32) -> Result<Vec<Placed<Uuid, Batch>>> {
    let rows = query(CLOSING_FIRST).bind(owner.as_str()).bind(i64::from(limit)).fetch_all(conn).await?;
    Ok(rows.iter().map(|row| placed(row, Some)).collect())
}

pub async fn rows_in_progress(conn: &mut Conn, owner: &Owner, limit: u32) -> Result<RowSums> {
    Ok(query_as(ROWS_IN_PROGRESS).bind(owner.as_str()).bind(i64::from(limit)).fetch_one(conn).await?)
}

/// A row with its place, which `place` makes of its id: `None` if that cannot be read.
pub(super) fn placed<Place>(row: &Row, place: impl FnOnce(Uuid) -> Option<Place>) -> Placed<Place, Batch> {
    let id: Option<Uuid> = row.try_get("id").ok();
    let name = id.map(|id| BatchId(id).to_string());
    Placed { place: id.and_then(place), read: read_row::<_, BatchRow, Batch>("batches", name, row) }
}

pub async fn cancel(tx: &mut Conn, owner: &Owner, id: BatchId, now: Timestamp) -> Result<End<Option<BatchRow>>> {
    query(CANCEL).bind(owner.as_str()).bind(id.0).bind(now.0).execute(&mut *tx).await?;
    announce(tx).await?;
    Ok(End::Commit(batch(tx, owner, id).await?))
}

pub async fn to_admit(
    conn: &mut Conn,
    after: Option<(Timestamp, BatchId)>,
    limit: u32,
) -> Result<Vec<Placed<(Timestamp, BatchId), Batch>>> {
    waiting(conn, TO_ADMIT, after, limit).await
}

pub async fn to_finish(
    conn: &mut Conn,
    after: Option<(Timestamp, BatchId)>,
    limit: u32,
) -> Result<Vec<Placed<(Timestamp, BatchId), Batch>>> {
    waiting(conn, TO_FINISH, after, limit).await
}

async fn waiting(
    conn: &mut Conn,
    statement: &'static str,
    after: Option<(Timestamp, BatchId)>,
    limit: u32,
) -> Result<Vec<Placed<(Timestamp, BatchId), Batch>>> {
    let (expires_at, id) = after.map_or((i64::MIN, Uuid::nil()), |(expires_at, id)| (expires_at.0, id.0));
    let rows = query(statement).bind(expires_at).bind(id).bind(i64::from(limit)).fetch_all(conn).await?;
    let by_deadline = |row| placed(row, |id| Some((Timestamp(row.try_get("expires_at").ok()?), BatchId(id))));
    Ok(rows.iter().map(by_deadline).collect())
}

pub async fn admit(tx: &mut Conn, id: BatchId, lanes: &[NewLane], now: Timestamp) -> Result<End<bool>> {
    let total: u64 = lanes.iter().map(NewLane::rows).sum();
    let admit = query_scalar(ADMIT).bind(id.0).bind(now.0).bind(to_i64(total)).bind(model_of(lanes));
    let admitted: Option<Option<String>> = admit.fetch_optional(&mut *tx).await?;
    let Some(canary) = admitted else { return Ok(End::Commit(false)) };
    let first = canary.as_deref().and_then(Canary::parse).map(|canary| canary.shares(lanes));
    for (no, lane) in (0..).zip(lanes) {
        let held_from = first.as_ref().map(|first| lane.first + first[no]).filter(|position| *position < lane.last);
        query(OPEN_LANE)
            .bind(id.0)
            .bind(to_i64(no as u64))
            .bind(&lane.model)
            .bind(i64::from(lane.first))
            .bind(i64::from(lane.last))
            .bind(held_from.map(i64::from))
            .execute(&mut *tx)
            .await?;
    }
    announce(tx).await?;
    Ok(End::Commit(true))
}

pub async fn refuse(
    tx: &mut Conn,
    id: BatchId,
    errors: &str,
    subscriptions: &[Subscription],
    now: Timestamp,
) -> Result<End<bool>> {
    let refused = query_as(REFUSE).bind(id.0).bind(now.0).bind(errors).fetch_optional(&mut *tx).await?;
    let Some(ended) = refused else { return Ok(End::Commit(false)) };
    webhooks::announce_end(tx, &ended, subscriptions, now).await?;
    Ok(End::Commit(true))
}

pub async fn expire_overdue(tx: &mut Conn, now: Timestamp, limit: u32) -> Result<End<u64>> {
    let mut overdue: Vec<Uuid> = query_scalar(OVERDUE).bind(now.0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    // Locked one by one in the order of their ids, as the ledger does, so that neither waits for the other.
    overdue.sort_unstable();
    let mut expired = 0;
    for id in overdue {
        expired += u64::from(expire(tx, BatchId(id), now).await?);
    }
    Ok(End::Commit(expired))
}

pub async fn give_up(tx: &mut Conn, id: BatchId, now: Timestamp) -> Result<End<bool>> {
    let given_up = expire(tx, id, now).await?;
    announce(tx).await?;
    Ok(End::Commit(given_up))
}

async fn expire(tx: &mut Conn, id: BatchId, now: Timestamp) -> Result<bool> {
    let expired = query(EXPIRE).bind(id.0).bind(now.0).execute(tx).await?;
    Ok(expired.rows_affected() == 1)
}

pub async fn input(conn: &mut Conn, owner: &Owner, id: BatchId) -> Result<Option<InputRow>> {
    Ok(query_as(INPUT).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?)
}

pub async fn any_input(conn: &mut Conn, id: BatchId) -> Result<Option<InputRow>> {
    Ok(query_as(ANY_INPUT).bind(id.0).fetch_optional(conn).await?)
}

//! The ledger: recording outcomes, and ending a batch.
//!
//! Every transaction here locks the batch first, then its lanes, then its leases, each in the order of their ids, so
//! that no two of them wait for each other.

use futures::TryStreamExt as _;
use uuid::Uuid;

use super::files::visible_at;
use super::query::{query, query_as, query_scalar};
use super::record::{Checked, Checks, correct_counters, finalize_if_all_recorded, ledger_counts, record_batch};
use super::{Conn, files, webhooks};
use crate::domain::batch::Counts;
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BatchId, BlobId, FileId, RequestId};
use crate::domain::owner::Owner;
use crate::domain::report::{NewLane, model_of};
use crate::domain::time::Timestamp;
use crate::domain::webhook::Subscription;
use crate::storage::sql::ledger::decode;
use crate::storage::sql::webhooks::EndedBatch;
use crate::storage::sql::{End, corrupt, owner_of, to_i64, to_u64};
use crate::storage::{Ending, Flush, Recorded, Result, ResultParts, RowPart};

// A part may have been merged into another since it was recorded.
const IS_RECORDED: &str = "
    SELECT 1 FROM file_parts WHERE blob = $1
    UNION ALL
    SELECT 1 FROM retired_blobs WHERE blob = $1";

const RECORDED_ROWS: &str = "
    SELECT file_parts.rows
    FROM file_parts JOIN batches ON file_parts.file_id IN (batches.output_file_id, batches.error_file_id)
    WHERE batches.id = $1";

// While a batch runs, its files are not in `files`, and everything recorded can be seen.
macro_rules! visible_parts {
    () => {
        concat!(
            " FROM file_parts
     JOIN batches ON file_parts.file_id IN (batches.output_file_id, batches.error_file_id)
     WHERE batches.owner = $1 AND batches.id = $2
       AND NOT EXISTS (SELECT 1 FROM files WHERE files.id = file_parts.file_id AND NOT (",
            visible_at!("$3"),
            "))"
        )
    };
}

const PARTS_WITH_ROWS: &str = concat!(
    "SELECT file_parts.blob, file_parts.bytes, file_parts.rows, file_parts.file_id = batches.output_file_id",
    visible_parts!()
);

const RESULT_PARTS: &str = concat!(
    "SELECT file_parts.blob, file_parts.bytes, file_parts.file_id = batches.output_file_id",
    visible_parts!(),
    " ORDER BY file_parts.no"
);

// Both change nothing, and lock the batch until the transaction ends.
const LOCK_ENDING: &str = "
    UPDATE batches SET status = status
    WHERE id = $1 AND status IN ('finalizing', 'cancelling')
    RETURNING output_file_id, error_file_id, total, completed, failed";
const LOCK_RUNNING: &str = "
    UPDATE batches SET status = status
    WHERE id = $1 AND status IN ('in_progress', 'finalizing', 'cancelling')
    RETURNING output_file_id, error_file_id, total, completed, failed";

// Waits for claims under way, and leaves nothing to claim: after this no lease can be added.
const CLOSE_LANES: &str = "UPDATE lanes SET next = last WHERE batch_id = $1 AND next < last";

const LIVE_LEASES: &str = "
    SELECT COUNT(*)
    FROM leases JOIN daemons ON daemons.id = leases.daemon_id
    WHERE leases.batch_id = $1";

const DROP_LEASES: &str = "DELETE FROM leases WHERE batch_id = $1";

const END: &str = "
    UPDATE batches
    SET status = $3, error_parts = error_parts + $5, failed = failed + $6,
        total = total + $7, model = COALESCE(model, $8),
        completed_at = CASE WHEN $3 = 'completed' THEN $4 END,
        expired_at = CASE WHEN $3 = 'expired' THEN $4 END,
        cancelled_at = CASE WHEN $3 = 'cancelled' THEN $4 END
    WHERE id = $1 AND status = $2 AND status IN ('finalizing', 'cancelling')
    RETURNING id, status, owner, webhook_url, webhook_secret, output_file_id, output_parts, error_file_id, error_parts";

const SIZE: &str = "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM file_parts WHERE file_id = $1";

/// What a batch counts, and the files that its ledger is in.
#[derive(sqlx::FromRow)]
struct Counted {
    output_file_id: Uuid,
    error_file_id: Uuid,
    total: i64,
    completed: i64,
    failed: i64,
}

/// The files of a batch that has ended, and the number of parts each has.
#[derive(sqlx::FromRow)]
struct EndedFiles {
    #[sqlx(flatten)]
    batch: EndedBatch,
    output_file_id: Uuid,
    output_parts: i64,
    error_file_id: Uuid,
    error_parts: i64,
}

pub async fn is_recorded(conn: &mut Conn, blob: BlobId) -> Result<bool> {
    let known: Option<i32> = query_scalar(IS_RECORDED).bind(blob.0).fetch_optional(conn).await?;
    Ok(known.is_some())
}

/// `guarded`: whether rows that have their line already are looked for. Only a test of the guard does without.
pub async fn record(
    tx: &mut Conn,
    flush: &Flush,
    first_blob: BlobId,
    guarded: bool,
    now: Timestamp,
) -> Result<End<Recorded>> {
    // A commit whose answer was lost: all of a flush is recorded, or nothing of it.
    if is_recorded(tx, first_blob).await? {
        return Ok(End::Rollback(Recorded::Applied));
    }
    let checks = Checks { guarded, pause_after_alike: flush.pause_after_alike };
    let (mut lost, mut violations) = (Vec::new(), Vec::new());
    for (id, batch) in &flush.batches {
        match record_batch(tx, *id, batch, checks, now).await? {
            Checked::Recorded => {}
            Checked::Lost(leases) => lost.extend(leases),
            Checked::Violation(violation) => violations.push(violation),
        }
    }
    Ok(if !violations.is_empty() {
        End::Rollback(Recorded::Violations(violations))
    } else if !lost.is_empty() {
        End::Rollback(Recorded::LostLeases(lost))
    } else {
        End::Commit(Recorded::Applied)
    })
}

/// The row numbers of each part, as they are stored.
pub async fn recorded_rows(conn: &mut Conn, id: BatchId) -> Result<Vec<Vec<u8>>> {
    let parts: Vec<Option<Vec<u8>>> = query_scalar(RECORDED_ROWS).bind(id.0).fetch_all(conn).await?;
    Ok(parts.into_iter().flatten().collect())
}

pub async fn part_of_row(conn: &mut Conn, owner: &Owner, row: RequestId, now: Timestamp) -> Result<Option<RowPart>> {
    // One bitmap at a time: those of a large batch are more than one row's line is worth.
    let mut parts = query_as(PARTS_WITH_ROWS).bind(owner.as_str()).bind(row.batch.0).bind(now.0).fetch(conn);
    while let Some(part) = parts.try_next().await? {
        let (blob, bytes, rows, succeeded): (Uuid, i64, Vec<u8>, bool) = part;
        let rows = decode(&rows).ok_or_else(|| corrupt("file_parts", "rows", row.batch))?;
        if rows.contains(row.row) {
            let part = FilePart { blob: BlobId(blob), bytes: to_u64(bytes) };
            return Ok(Some(RowPart { part, succeeded }));
        }
    }
    Ok(None)
}

pub async fn result_parts(conn: &mut Conn, owner: &Owner, id: BatchId, now: Timestamp) -> Result<ResultParts> {
    let rows: Vec<(Uuid, i64, bool)> =
        query_as(RESULT_PARTS).bind(owner.as_str()).bind(id.0).bind(now.0).fetch_all(conn).await?;
    let mut parts = ResultParts::default();
    for (blob, bytes, is_output) in rows {
        let file = if is_output { &mut parts.output } else { &mut parts.errors };
        file.push(FilePart { blob: BlobId(blob), bytes: to_u64(bytes) });
    }
    Ok(parts)
}

pub async fn recount(tx: &mut Conn, id: BatchId, now: Timestamp) -> Result<End<()>> {
    let counted: Option<Counted> = query_as(LOCK_RUNNING).bind(id.0).fetch_optional(&mut *tx).await?;
    if let Some(counted) = counted {
        correct(tx, id, &counted).await?;
        finalize_if_all_recorded(tx, id, now).await?;
    }
    Ok(End::Commit(()))
}

pub async fn fence(tx: &mut Conn, id: BatchId) -> Result<End<Option<Counts>>> {
    let counted: Option<Counted> = query_as(LOCK_ENDING).bind(id.0).fetch_optional(&mut *tx).await?;
    let Some(counted) = counted else { return Ok(End::Commit(None)) };
    query(CLOSE_LANES).bind(id.0).execute(&mut *tx).await?;
    let live: i64 = query_scalar(LIVE_LEASES).bind(id.0).fetch_one(&mut *tx).await?;
    if live > 0 {
        return Ok(End::Commit(None));
    }
    query(DROP_LEASES).bind(id.0).execute(&mut *tx).await?;
    let (completed, failed) = correct(tx, id, &counted).await?;
    let counts = Counts { total: to_u64(counted.total), completed: to_u64(completed), failed: to_u64(failed) };
    Ok(End::Commit(Some(counts)))
}

/// Sets the counters of a batch, which is locked, to those of its ledger, and returns them.
async fn correct(tx: &mut Conn, id: BatchId, counted: &Counted) -> Result<(i64, i64)> {
    let counts = ledger_counts(tx, counted.output_file_id, counted.error_file_id).await?;
    if counts != (counted.completed, counted.failed) {
        correct_counters(tx, id, counts).await?;
    }
    Ok(counts)
}

pub async fn finish(
    tx: &mut Conn,
    ending: &Ending,
    subscriptions: &[Subscription],
    now: Timestamp,
) -> Result<End<bool>> {
    let Some(ended) = end(tx, ending, now).await? else { return Ok(End::Commit(false)) };
    let owner = owner_of(&ended.batch.owner, "batches", ending.id)?;
    webhooks::announce_end(tx, &ended.batch, subscriptions, now).await?;
    if let Some(never_ran) = &ending.never_ran {
        let (file, no) = (FileId(ended.error_file_id), ended.error_parts - 1);
        files::insert_part(tx, file, no, never_ran.part, Some(&never_ran.rows)).await?;
    }
    if ended.output_parts > 0 {
        publish(tx, &owner, ending, (FileId(ended.output_file_id), "output"), now).await?;
    }
    if ended.error_parts > 0 {
        publish(tx, &owner, ending, (FileId(ended.error_file_id), "error"), now).await?;
    }
    Ok(End::Commit(true))
}

/// Makes the status terminal; `None` if the batch is not as it was fenced.
async fn end(tx: &mut Conn, ending: &Ending, now: Timestamp) -> Result<Option<EndedFiles>> {
    let ended = query_as(END)
        .bind(ending.id.0)
        .bind(ending.from.as_str())
        .bind(ending.status().as_str())
        .bind(now.0)
        .bind(i64::from(ending.never_ran.is_some()))
        .bind(to_i64(ending.failed()))
        .bind(to_i64(ending.never_admitted.iter().map(NewLane::rows).sum()))
        .bind(model_of(&ending.never_admitted));
    Ok(ended.fetch_optional(tx).await?)
}

/// Puts a file of a batch among the files of its owner.
async fn publish(
    tx: &mut Conn,
    owner: &Owner,
    ending: &Ending,
    (id, kind): (FileId, &str),
    now: Timestamp,
) -> Result<()> {
    let bytes: i64 = query_scalar(SIZE).bind(id.0).fetch_one(&mut *tx).await?;
    let file = File {
        id,
        purpose: Purpose::BatchOutput,
        filename: format!("{}_{kind}.jsonl", ending.id),
        bytes: to_u64(bytes),
        created_at: now,
        expires_at: ending.files_expire_at,
    };
    files::insert(tx, owner, &file, None, None).await
}

//! Recording the outcomes of one batch, within a transaction.
//!
//! The ledger defends itself here: no row gets a second line, no lease pays more rows off than it owes, and no counter
//! passes its total, whatever the recorder hands in. A fault of the program then costs calls, never a line.

use futures::TryStreamExt as _;
use roaring::RoaringBitmap;
use uuid::Uuid;

use super::query::{query, query_as, query_scalar};
use super::{Conn, attempts, files, leases, progress, steering};
use crate::domain::ids::{BatchId, FileId};
use crate::domain::lease::LeaseHold;
use crate::domain::statistics::BatchStatistics;
use crate::domain::time::Timestamp;
use crate::storage::sql::ledger::decode;
use crate::storage::sql::progress::read as read_statistics;
use crate::storage::sql::{corrupt, to_i64};
use crate::storage::{BatchFlush, Contradiction, RecordedPart, Result, Violation};

const COUNT: &str = "
    UPDATE batches
    SET completed = completed + $2, failed = failed + $3,
        input_tokens = input_tokens + $4, cached_tokens = cached_tokens + $5, output_tokens = output_tokens + $6,
        reasoning_tokens = reasoning_tokens + $7, total_tokens = total_tokens + $8,
        output_parts = output_parts + $9, error_parts = error_parts + $10
    WHERE id = $1 AND status IN ('in_progress', 'finalizing', 'cancelling') AND completed + failed + $2 + $3 <= total
    RETURNING output_file_id, output_parts, error_file_id, error_parts, completed, failed, total, status, canary";

const RUNS: &str = "SELECT 1 FROM batches WHERE id = $1 AND status IN ('in_progress', 'finalizing', 'cancelling')";

const SET_COUNTERS: &str = "UPDATE batches SET completed = $2, failed = $3 WHERE id = $1";

// Of a file whose batch is locked: no part is added meanwhile.
const ROWS_OF_FILE: &str = "SELECT rows FROM file_parts WHERE file_id = $1 AND rows IS NOT NULL";

// The fence: no row without the current token, no recording without the row.
// What is recorded shows that the lease is none that kills whoever holds it. Of a lease in quarantine it shows that of
// a single row, so the lease stays there.
const PAY_OFF: &str = "
    UPDATE leases
    SET owed = owed - $3, deaths = CASE WHEN tries > 0 THEN deaths ELSE 0 END, tries = 0
    WHERE id = $1 AND token = $2 AND owed >= $3
    RETURNING owed";
const DROP_PAID: &str = "DELETE FROM leases WHERE id = $1 AND owed <= 0";

// The counters tell that the last row is recorded: each row is counted once, in the transaction that records it. They
// cannot pass the total; if they did, the batch would end all the same, by its ledger.
const ALL_RECORDED: &str = "
    UPDATE batches
    SET status = 'finalizing', finalizing_at = $2
    WHERE id = $1 AND status = 'in_progress' AND completed + failed >= total";

/// The two files of a batch, the number of parts each has, and what decides whether the batch goes on.
#[derive(sqlx::FromRow)]
pub struct Files {
    pub output_file_id: Uuid,
    pub output_parts: i64,
    pub error_file_id: Uuid,
    pub error_parts: i64,
    pub completed: i64,
    pub failed: i64,
    pub total: i64,
    pub status: String,
    pub canary: Option<String>,
}

/// How many rows completed and failed, of the rows that have a line in the output and in the error file.
fn counts(output: &RoaringBitmap, error: &RoaringBitmap) -> (i64, i64) {
    (to_i64(output.len()), to_i64(error.difference_len(output)))
}

/// What became of the outcomes of one batch within a transaction that records.
pub enum Checked {
    Recorded,
    Lost(Vec<LeaseHold>),
    Violation(Violation),
}

impl Checked {
    fn violation(batch: BatchId, leases: Vec<LeaseHold>, what: Contradiction) -> Self {
        Self::Violation(Violation { batch, leases, what })
    }
}

/// What is looked for while outcomes are recorded.
#[derive(Clone, Copy)]
pub struct Checks {
    /// Whether rows that have their line already are looked for.
    pub guarded: bool,
    /// Whether so many failures alike pause their batch; 0: never.
    pub pause_after_alike: u64,
}

/// Records the outcomes of one batch. Unless all of it is recorded, the transaction must be rolled back.
pub async fn record_batch(
    tx: &mut Conn,
    id: BatchId,
    batch: &BatchFlush,
    Checks { guarded, pause_after_alike }: Checks,
    now: Timestamp,
) -> Result<Checked> {
    let Some(files) = count(tx, id, batch).await? else { return why_not_counted(tx, id, batch).await };
    // Before the leases are locked, because it may lock lanes.
    steering::end_canary(tx, id, &files, now).await?;
    if let Some(refused) = pay_off_all(tx, id, batch).await? {
        return Ok(refused);
    }
    if guarded && let Some(refused) = contradiction(tx, id, batch, &files).await? {
        return Ok(refused);
    }
    append(tx, &files, batch).await?;
    attempts::keep(tx, id, &batch.attempts).await?;
    let statistics = add_statistics(tx, id, batch, now).await?;
    steering::pause_if_alike(tx, id, &files, &statistics, pause_after_alike, now).await?;
    finalize_if_all_recorded(tx, id, now).await?;
    Ok(Checked::Recorded)
}

/// Locks the batch and adds to its counters; `None` if it does not run, or they would pass its total.
async fn count(tx: &mut Conn, id: BatchId, batch: &BatchFlush) -> Result<Option<Files>> {
    let counted = query_as(COUNT)
        .bind(id.0)
        .bind(rows_in(batch.output.as_ref()))
        .bind(rows_in(batch.error.as_ref()))
        .bind(to_i64(batch.usage.input_tokens))
        .bind(to_i64(batch.usage.cached_tokens))
        .bind(to_i64(batch.usage.output_tokens))
        .bind(to_i64(batch.usage.reasoning_tokens))
        .bind(to_i64(batch.usage.total_tokens))
        .bind(i64::from(batch.output.is_some()))
        .bind(i64::from(batch.error.is_some()));
    Ok(counted.fetch_optional(tx).await?)
}

fn rows_in(part: Option<&RecordedPart>) -> i64 {
    to_i64(part.map_or(0, |part| part.rows.len()))
}

async fn why_not_counted(tx: &mut Conn, id: BatchId, batch: &BatchFlush) -> Result<Checked> {
    let runs: Option<i32> = query_scalar(RUNS).bind(id.0).fetch_optional(&mut *tx).await?;
    if runs.is_none() {
        return Ok(Checked::Lost(every_lease(batch)));
    }
    // With the rows of lost leases left out the counters may fit.
    let mut lost = Vec::new();
    for lease in batch.leases.keys() {
        if !leases::lock(tx, *lease).await? {
            lost.push(*lease);
        }
    }
    Ok(match lost[..] {
        [] => Checked::violation(id, every_lease(batch), Contradiction::CountersPassTotal),
        _ => Checked::Lost(lost),
    })
}

fn every_lease(batch: &BatchFlush) -> Vec<LeaseHold> {
    batch.leases.keys().copied().collect()
}

/// Takes what was run under each lease off what it owes; says what is wrong if one does not allow it.
async fn pay_off_all(tx: &mut Conn, id: BatchId, batch: &BatchFlush) -> Result<Option<Checked>> {
    let (mut lost, mut overdrawn) = (Vec::new(), Vec::new());
    for (lease, rows) in &batch.leases {
        match pay_off(tx, *lease, to_i64(rows.len())).await? {
            Paid::Off => {}
            Paid::Lost => lost.push(*lease),
            Paid::MoreThanOwed => overdrawn.push(*lease),
        }
    }
    // First, because of two runs of a lease the earlier is lost, and no fault.
    if !lost.is_empty() {
        return Ok(Some(Checked::Lost(lost)));
    }
    Ok(match overdrawn[..] {
        [] => None,
        _ => Some(Checked::violation(id, overdrawn, Contradiction::MoreThanOwed)),
    })
}

enum Paid {
    Off,
    Lost,
    MoreThanOwed,
}

async fn pay_off(tx: &mut Conn, lease: LeaseHold, rows: i64) -> Result<Paid> {
    let owed: Option<i64> =
        query_scalar(PAY_OFF).bind(lease.id.0).bind(lease.token).bind(rows).fetch_optional(&mut *tx).await?;
    match owed {
        Some(0) => {
            query(DROP_PAID).bind(lease.id.0).execute(tx).await?;
            Ok(Paid::Off)
        }
        Some(_) => Ok(Paid::Off),
        None if leases::lock(tx, lease).await? => Ok(Paid::MoreThanOwed),
        None => Ok(Paid::Lost),
    }
}

/// What the outcomes contradict in the ledger, if anything. Counters that differ from the ledger are set to it.
async fn contradiction(tx: &mut Conn, id: BatchId, batch: &BatchFlush, files: &Files) -> Result<Option<Checked>> {
    if !batch.is_consistent() {
        return Ok(Some(Checked::violation(id, every_lease(batch), Contradiction::RowsDiffer)));
    }
    let (completed, failed) = (rows_of(tx, files.output_file_id).await?, rows_of(tx, files.error_file_id).await?);
    let already = (&completed | &failed) & batch.rows();
    if !already.is_empty() {
        let leases = batch.leases_of(&already);
        return Ok(Some(Checked::violation(id, leases, Contradiction::RecordedAlready(already))));
    }
    let before = counts(&completed, &failed);
    let counts = (before.0 + rows_in(batch.output.as_ref()), before.1 + rows_in(batch.error.as_ref()));
    if counts != (files.completed, files.failed) {
        correct_counters(tx, id, counts).await?;
    }
    Ok(None)
}

/// Appends the parts to their files.
async fn append(tx: &mut Conn, files: &Files, batch: &BatchFlush) -> Result<()> {
    let parts = [
        (&batch.output, files.output_file_id, files.output_parts),
        (&batch.error, files.error_file_id, files.error_parts),
    ];
    for (part, file, parts) in parts {
        if let Some(RecordedPart { part, rows, .. }) = part {
            files::insert_part(tx, FileId(file), parts - 1, *part, Some(rows)).await?;
        }
    }
    Ok(())
}

/// Adds what is recorded to the statistics of the batch, which is locked, and returns them.
async fn add_statistics(tx: &mut Conn, id: BatchId, batch: &BatchFlush, now: Timestamp) -> Result<BatchStatistics> {
    let stored = progress::statistics_of(tx, id).await?;
    let mut statistics = stored.as_deref().map(read_statistics).unwrap_or_default();
    statistics.record(now, &batch.statistics);
    progress::keep(tx, id, &serde_json::to_string(&statistics).expect("numbers, texts and lists of them")).await?;
    Ok(statistics)
}

/// Moves a batch whose last row is recorded to `finalizing`.
pub async fn finalize_if_all_recorded(tx: &mut Conn, id: BatchId, now: Timestamp) -> Result<()> {
    query(ALL_RECORDED).bind(id.0).bind(now.0).execute(tx).await?;
    Ok(())
}

/// The rows that have their line in a file.
async fn rows_of(tx: &mut Conn, file: Uuid) -> Result<RoaringBitmap> {
    let mut parts = query_scalar(ROWS_OF_FILE).bind(file).fetch(tx);
    let mut rows = RoaringBitmap::new();
    while let Some(part) = parts.try_next().await? {
        let part: Vec<u8> = part;
        rows |= decode(&part).ok_or_else(|| corrupt("file_parts", "rows", file))?;
    }
    Ok(rows)
}

/// How many rows have their line in the output and in the error file of a batch.
pub async fn ledger_counts(tx: &mut Conn, output_file: Uuid, error_file: Uuid) -> Result<(i64, i64)> {
    let completed = rows_of(tx, output_file).await?;
    Ok(counts(&completed, &rows_of(tx, error_file).await?))
}

/// Sets the counters of a batch, which is locked, to those of its ledger.
pub async fn correct_counters(tx: &mut Conn, id: BatchId, (completed, failed): (i64, i64)) -> Result<()> {
    tracing::error!(
        batch_id = %id,
        completed,
        failed,
        "the counters of a batch were not those of its ledger; the ledger holds"
    );
    query(SET_COUNTERS).bind(id.0).bind(completed).bind(failed).execute(tx).await?;
    Ok(())
}

//! Recording the outcomes of one batch, within a transaction.
//!
//! The ledger defends itself here: no row gets a second line, no lease pays more rows off than it owes, and no counter
//! passes its total, whatever the recorder hands in. A fault of the program then costs calls, never a line.

use futures::TryStreamExt as _;
use roaring::RoaringBitmap;
use sqlx::{PgConnection, SqliteConnection};
use uuid::Uuid;

use super::dialect::{Locks as _, query, query_as, query_scalar};
use super::files::INSERT_PART;
use super::ledger::{decode, encode};
use super::{corrupt, to_i64};
use crate::domain::ids::BatchId;
use crate::domain::lease::FencedLease;
use crate::domain::time::Timestamp;
use crate::storage::{BatchFlush, Contradiction, RecordedPart, Result, Violation};

const COUNT: &str = "
    UPDATE batches
    SET completed = completed + $2, failed = failed + $3,
        input_tokens = input_tokens + $4, cached_tokens = cached_tokens + $5, output_tokens = output_tokens + $6,
        reasoning_tokens = reasoning_tokens + $7, total_tokens = total_tokens + $8,
        output_parts = output_parts + $9, error_parts = error_parts + $10
    WHERE id = $1 AND status IN ('in_progress', 'finalizing', 'cancelling') AND completed + failed + $2 + $3 <= total
    RETURNING output_file_id, output_parts, error_file_id, error_parts, completed, failed";

const RUNS: &str = "SELECT 1 FROM batches WHERE id = $1 AND status IN ('in_progress', 'finalizing', 'cancelling')";

const SET_COUNTERS: &str = "UPDATE batches SET completed = $2, failed = $3 WHERE id = $1";

// Of a file whose batch is locked: no part is added meanwhile.
const ROWS_OF_FILE: &str = "SELECT rows FROM file_parts WHERE file_id = $1 AND rows IS NOT NULL";

// The fence: no row without the current token, no recording without the row.
// What is recorded shows that the lease is none that kills whoever holds it. Of one whose rows run one by one it shows
// that of a single row, so it stays suspect.
const PAY_OFF: &str = "
    UPDATE leases
    SET owed = owed - $3, deaths = CASE WHEN tries > 0 THEN deaths ELSE 0 END, tries = 0
    WHERE id = $1 AND token = $2 AND owed >= $3
    RETURNING owed";
const DROP_PAID: &str = "DELETE FROM leases WHERE id = $1 AND owed <= 0";

// The counters tell that the last row is recorded: each row is counted once, in the transaction that records it. They
// cannot pass the total; if they did, the batch would end all the same, by its ledger.
pub(super) const ALL_RECORDED: &str = "
    UPDATE batches
    SET status = 'finalizing', finalizing_at = $2
    WHERE id = $1 AND status = 'in_progress' AND completed + failed >= total";

/// The two files of a batch and the number of parts each has.
#[derive(sqlx::FromRow)]
pub(super) struct Files {
    pub(super) output_file_id: Uuid,
    pub(super) output_parts: i64,
    pub(super) error_file_id: Uuid,
    pub(super) error_parts: i64,
    pub(super) completed: i64,
    pub(super) failed: i64,
}

/// How many rows completed and failed, of the rows that have a line in the output and in the error file.
fn counts(output: &RoaringBitmap, error: &RoaringBitmap) -> (i64, i64) {
    (to_i64(output.len()), to_i64(error.difference_len(output)))
}

/// What became of the outcomes of one batch within a transaction that records.
pub(super) enum Checked {
    Recorded,
    Lost(Vec<FencedLease>),
    Violation(Violation),
}

/// Recording the outcomes of one batch within a transaction. Unless all of it is recorded, the transaction must be rolled
/// back.
pub(super) trait RecordBatch {
    /// `guarded`: whether rows that have their line already are looked for. Only a test of the guard does without.
    async fn record_batch(&mut self, id: BatchId, batch: &BatchFlush, guarded: bool, now: Timestamp)
    -> Result<Checked>;

    /// Appends the parts to their files.
    async fn append(&mut self, files: &Files, batch: &BatchFlush) -> Result<()>;

    /// The rows that have their line in a file.
    async fn rows_of(&mut self, file: Uuid) -> Result<RoaringBitmap>;

    /// How many rows have their line in the output and in the error file of a batch.
    async fn ledger_counts(&mut self, output_file: Uuid, error_file: Uuid) -> Result<(i64, i64)>;

    /// Sets the counters of a batch, which is locked, to those of its ledger.
    async fn correct_counters(&mut self, id: BatchId, counts: (i64, i64)) -> Result<()>;

    /// Takes what was run under a lease off what it owes.
    async fn pay_off(&mut self, lease: FencedLease, rows: i64) -> Result<Paid>;
}

pub(super) enum Paid {
    Off,
    Lost,
    MoreThanOwed,
}

// Once for each database: of a generic one the compiler does not see that it can be sent between threads.
macro_rules! records_batches {
    ($($connection:ty),+) => {$(
        impl RecordBatch for $connection {
            async fn record_batch(
                &mut self,
                id: BatchId,
                batch: &BatchFlush,
                guarded: bool,
                now: Timestamp,
            ) -> Result<Checked> {
                let violation = |leases, what| Ok(Checked::Violation(Violation { batch: id, leases, what }));
                let every_lease = || batch.leases.keys().copied().collect::<Vec<_>>();
                let count = |part: &Option<RecordedPart>| to_i64(part.as_ref().map_or(0, |part| part.rows.len()));
                let files: Option<Files> = query_as(COUNT)
                    .bind(id.0)
                    .bind(count(&batch.output))
                    .bind(count(&batch.error))
                    .bind(to_i64(batch.usage.input_tokens))
                    .bind(to_i64(batch.usage.cached_tokens))
                    .bind(to_i64(batch.usage.output_tokens))
                    .bind(to_i64(batch.usage.reasoning_tokens))
                    .bind(to_i64(batch.usage.total_tokens))
                    .bind(i64::from(batch.output.is_some()))
                    .bind(i64::from(batch.error.is_some()))
                    .fetch_optional(&mut *self)
                    .await?;
                let Some(files) = files else {
                    let runs: Option<i32> = query_scalar(RUNS).bind(id.0).fetch_optional(&mut *self).await?;
                    if runs.is_none() {
                        return Ok(Checked::Lost(every_lease()));
                    }
                    // With the rows of lost leases left out the counters may fit.
                    let mut lost = Vec::new();
                    for lease in batch.leases.keys() {
                        if !self.lock_lease(lease.id.0, lease.token).await? {
                            lost.push(*lease);
                        }
                    }
                    return match lost[..] {
                        [] => violation(every_lease(), Contradiction::CountersPassTotal),
                        _ => Ok(Checked::Lost(lost)),
                    };
                };
                let (mut lost, mut overdrawn) = (Vec::new(), Vec::new());
                for (lease, rows) in &batch.leases {
                    match self.pay_off(*lease, to_i64(rows.len())).await? {
                        Paid::Off => {}
                        Paid::Lost => lost.push(*lease),
                        Paid::MoreThanOwed => overdrawn.push(*lease),
                    }
                }
                // First, because of two runs of a lease the earlier is lost, and no fault.
                if !lost.is_empty() {
                    return Ok(Checked::Lost(lost));
                }
                if !overdrawn.is_empty() {
                    return violation(overdrawn, Contradiction::MoreThanOwed);
                }
                if guarded {
                    if !batch.is_consistent() {
                        return violation(every_lease(), Contradiction::RowsDiffer);
                    }
                    let (completed, failed) =
                        (self.rows_of(files.output_file_id).await?, self.rows_of(files.error_file_id).await?);
                    let already = (&completed | &failed) & batch.rows();
                    if !already.is_empty() {
                        return violation(batch.leases_of(&already), Contradiction::RecordedAlready(already));
                    }
                    let counts = counts(&completed, &failed);
                    let counts = (counts.0 + count(&batch.output), counts.1 + count(&batch.error));
                    if counts != (files.completed, files.failed) {
                        self.correct_counters(id, counts).await?;
                    }
                }
                self.append(&files, batch).await?;
                query(ALL_RECORDED).bind(id.0).bind(now.0).execute(&mut *self).await?;
                Ok(Checked::Recorded)
            }

            async fn append(&mut self, files: &Files, batch: &BatchFlush) -> Result<()> {
                let parts = [
                    (&batch.output, files.output_file_id, files.output_parts),
                    (&batch.error, files.error_file_id, files.error_parts),
                ];
                for (part, file_id, parts) in parts {
                    if let Some(part) = part {
                        query(INSERT_PART)
                            .bind(file_id)
                            .bind(parts - 1)
                            .bind(part.part.blob.0)
                            .bind(to_i64(part.part.bytes))
                            .bind(Some(encode(&part.rows)))
                            .execute(&mut *self)
                            .await?;
                    }
                }
                Ok(())
            }

            async fn rows_of(&mut self, file: Uuid) -> Result<RoaringBitmap> {
                let mut parts = query_scalar(ROWS_OF_FILE).bind(file).fetch(&mut *self);
                let mut rows = RoaringBitmap::new();
                while let Some(part) = parts.try_next().await? {
                    let part: Vec<u8> = part;
                    rows |= decode(&part).ok_or_else(|| corrupt("file_parts", "rows", file))?;
                }
                Ok(rows)
            }

            async fn ledger_counts(&mut self, output_file: Uuid, error_file: Uuid) -> Result<(i64, i64)> {
                let completed = self.rows_of(output_file).await?;
                Ok(counts(&completed, &self.rows_of(error_file).await?))
            }

            async fn correct_counters(&mut self, id: BatchId, (completed, failed): (i64, i64)) -> Result<()> {
                tracing::error!(
                    batch_id = %id,
                    completed,
                    failed,
                    "the counters of a batch were not those of its ledger; the ledger holds"
                );
                query(SET_COUNTERS).bind(id.0).bind(completed).bind(failed).execute(&mut *self).await?;
                Ok(())
            }

            async fn pay_off(&mut self, lease: FencedLease, rows: i64) -> Result<Paid> {
                let owed: Option<i64> = query_scalar(PAY_OFF)
                    .bind(lease.id.0)
                    .bind(lease.token)
                    .bind(rows)
                    .fetch_optional(&mut *self)
                    .await?;
                match owed {
                    Some(0) => {
                        query(DROP_PAID).bind(lease.id.0).execute(&mut *self).await?;
                        Ok(Paid::Off)
                    }
                    Some(_) => Ok(Paid::Off),
                    None if self.lock_lease(lease.id.0, lease.token).await? => Ok(Paid::MoreThanOwed),
                    None => Ok(Paid::Lost),
                }
            }
        }
    )+};
}

records_batches!(SqliteConnection, PgConnection);

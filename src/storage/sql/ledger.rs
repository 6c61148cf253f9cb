//! The ledger: recording outcomes, and ending a batch.
//!
//! Every transaction here locks the batch first, then its lanes, then its leases, each in the order of their ids, so
//! that no two of them wait for each other.

use async_trait::async_trait;
use futures::TryStreamExt as _;
use roaring::RoaringBitmap;
use uuid::Uuid;

use super::dialect::{query, query_as, query_scalar};
use super::files::{INSERT_FILE, INSERT_PART, visible_at};
use super::record::{ALL_RECORDED, Checked, Files, RecordBatch as _};
use super::{End, SqlStorage, corrupt, in_write, on_reader, to_i64, to_u64};
use crate::domain::batch::Counts;
use crate::domain::file::{FilePart, Purpose};
use crate::domain::ids::{BatchId, BlobId, RequestId};
use crate::domain::time::Timestamp;
use crate::storage::{Ending, Flush, Ledger, Recorded, Result, RowPart};

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
const PARTS_WITH_ROWS: &str = concat!(
    "SELECT file_parts.blob, file_parts.bytes, file_parts.rows, file_parts.file_id = batches.output_file_id
     FROM file_parts
     JOIN batches ON file_parts.file_id IN (batches.output_file_id, batches.error_file_id)
     WHERE batches.id = $1
       AND NOT EXISTS (SELECT 1 FROM files WHERE files.id = file_parts.file_id AND NOT (",
    visible_at!("$2"),
    "))"
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
        completed_at = CASE WHEN $3 = 'completed' THEN $4 END,
        expired_at = CASE WHEN $3 = 'expired' THEN $4 END,
        cancelled_at = CASE WHEN $3 = 'cancelled' THEN $4 END
    WHERE id = $1 AND status = $2 AND status IN ('finalizing', 'cancelling')
    RETURNING output_file_id, output_parts, error_file_id, error_parts, completed, failed";

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

#[async_trait]
impl Ledger for SqlStorage {
    async fn record(&self, flush: &Flush, now: Timestamp) -> Result<Recorded> {
        let Some(first_blob) = flush.first_blob() else { return Ok(Recorded::Applied) };
        let guarded = self.is_guarded();
        let recorded = in_write!(self.db, tx => {
            // A commit whose answer was lost: all of a flush is recorded, or nothing of it.
            let known: Option<i32> = query_scalar(IS_RECORDED).bind(first_blob.0).fetch_optional(&mut *tx).await?;
            if known.is_some() {
                End::Rollback(Recorded::Applied)
            } else {
                let (mut lost, mut violations) = (Vec::new(), Vec::new());
                for (id, batch) in &flush.batches {
                    match tx.record_batch(*id, batch, guarded, now).await? {
                        Checked::Recorded => {}
                        Checked::Lost(leases) => lost.extend(leases),
                        Checked::Violation(violation) => violations.push(violation),
                    }
                }
                if !violations.is_empty() {
                    End::Rollback(Recorded::Violations(violations))
                } else if !lost.is_empty() {
                    End::Rollback(Recorded::LostLeases(lost))
                } else {
                    End::Commit(Recorded::Applied)
                }
            }
        })?;
        if recorded == Recorded::Applied {
            return Ok(recorded);
        }
        // The commit may have been under way still when it was looked for. Then it is what refused this one, whose locks
        // waited for it, and it can be seen now.
        let known: Option<i32> = on_reader!(self.db, conn => {
            Ok(query_scalar(IS_RECORDED).bind(first_blob.0).fetch_optional(&mut *conn).await?)
        })?;
        Ok(if known.is_some() { Recorded::Applied } else { recorded })
    }

    async fn recorded_rows(&self, id: BatchId) -> Result<RoaringBitmap> {
        let parts: Vec<Option<Vec<u8>>> = on_reader!(self.db, conn => {
            Ok(query_scalar(RECORDED_ROWS).bind(id.0).fetch_all(&mut *conn).await?)
        })?;
        let mut recorded = RoaringBitmap::new();
        for rows in parts.into_iter().flatten() {
            recorded |= decode(&rows).ok_or_else(|| corrupt("file_parts", "rows", id))?;
        }
        Ok(recorded)
    }

    async fn part_of_row(&self, row: RequestId, now: Timestamp) -> Result<Option<RowPart>> {
        on_reader!(self.db, conn => {
            // One bitmap at a time: those of a large batch are more than one row's line is worth.
            let mut parts = query_as(PARTS_WITH_ROWS).bind(row.batch.0).bind(now.0).fetch(&mut *conn);
            let mut found = None;
            while let Some(part) = parts.try_next().await? {
                let (blob, bytes, rows, succeeded): (Uuid, i64, Vec<u8>, bool) = part;
                let rows = decode(&rows).ok_or_else(|| corrupt("file_parts", "rows", row.batch))?;
                if rows.contains(row.row) {
                    found = Some(RowPart { part: FilePart { blob: BlobId(blob), bytes: to_u64(bytes) }, succeeded });
                    break;
                }
            }
            Ok(found)
        })
    }

    async fn recount(&self, id: BatchId, now: Timestamp) -> Result<()> {
        in_write!(self.db, tx => {
            let counted: Option<Counted> = query_as(LOCK_RUNNING).bind(id.0).fetch_optional(&mut *tx).await?;
            if let Some(counted) = counted {
                let counts = tx.ledger_counts(counted.output_file_id, counted.error_file_id).await?;
                if counts != (counted.completed, counted.failed) {
                    tx.correct_counters(id, counts).await?;
                }
                query(ALL_RECORDED).bind(id.0).bind(now.0).execute(&mut *tx).await?;
            }
            End::Commit(())
        })
    }

    async fn fence(&self, id: BatchId) -> Result<Option<Counts>> {
        in_write!(self.db, tx => {
            let counted: Option<Counted> = query_as(LOCK_ENDING).bind(id.0).fetch_optional(&mut *tx).await?;
            if counted.is_some() {
                query(CLOSE_LANES).bind(id.0).execute(&mut *tx).await?;
            }
            let live: i64 = query_scalar(LIVE_LEASES).bind(id.0).fetch_one(&mut *tx).await?;
            match counted {
                Some(counted) if live == 0 => {
                    query(DROP_LEASES).bind(id.0).execute(&mut *tx).await?;
                    let (completed, failed) =
                        tx.ledger_counts(counted.output_file_id, counted.error_file_id).await?;
                    if (completed, failed) != (counted.completed, counted.failed) {
                        tx.correct_counters(id, (completed, failed)).await?;
                    }
                    End::Commit(Some(Counts {
                        total: to_u64(counted.total),
                        completed: to_u64(completed),
                        failed: to_u64(failed),
                    }))
                }
                _ => End::Commit(None),
            }
        })
    }

    async fn finish(&self, ending: &Ending, now: Timestamp) -> Result<bool> {
        let to = ending.status();
        in_write!(self.db, tx => {
            let files: Option<Files> = query_as(END)
                .bind(ending.id.0)
                .bind(ending.from.as_str())
                .bind(to.as_str())
                .bind(now.0)
                .bind(i64::from(ending.never_ran.is_some()))
                .bind(to_i64(ending.failed()))
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(files) = &files {
                if let Some(part) = &ending.never_ran {
                    query(INSERT_PART)
                        .bind(files.error_file_id)
                        .bind(files.error_parts - 1)
                        .bind(part.part.blob.0)
                        .bind(to_i64(part.part.bytes))
                        .bind(Some(encode(&part.rows)))
                        .execute(&mut *tx)
                        .await?;
                }
                let published = [
                    (files.output_file_id, files.output_parts, "output"),
                    (files.error_file_id, files.error_parts, "error"),
                ];
                for (file_id, parts, kind) in published {
                    if parts == 0 {
                        continue;
                    }
                    let bytes: i64 = query_scalar(SIZE).bind(file_id).fetch_one(&mut *tx).await?;
                    query(INSERT_FILE)
                        .bind(file_id)
                        .bind(Purpose::BatchOutput.as_str())
                        .bind(format!("{}_{kind}.jsonl", ending.id))
                        .bind(bytes)
                        .bind(now.0)
                        .bind(ending.files_expire_at.map(|at| at.0))
                        .bind(None::<Uuid>)
                        .bind(None::<String>)
                        .execute(&mut *tx)
                        .await?;
                }
            }
            End::Commit(files.is_some())
        })
    }
}

/// Row numbers as they are stored.
pub(super) fn encode(rows: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.serialized_size());
    rows.serialize_into(&mut bytes).expect("a Vec takes all");
    bytes
}

/// Row numbers as they were stored; `None` for what this program never stored.
pub(super) fn decode(stored: &[u8]) -> Option<RoaringBitmap> {
    RoaringBitmap::deserialize_from(stored).ok()
}

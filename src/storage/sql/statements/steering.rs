//! Steering: batches are paused and resumed by their owners, and paused by what became of their first rows.

use super::Conn;
use super::batches::batch;
use super::query::{announce, query, query_scalar};
use super::record::Files;
use crate::domain::batch::Counts;
use crate::domain::canary::{Canary, CanaryVerdict};
use crate::domain::failures::FailureKind;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::pause::PauseCause;
use crate::domain::statistics::BatchStatistics;
use crate::domain::time::Timestamp;
use crate::storage::Result;
use crate::storage::sql::batches::BatchRow;
use crate::storage::sql::files::json;
use crate::storage::sql::{End, to_u64};

const PAUSE: &str = "
    UPDATE batches
    SET paused_at = $3, pause_reason = $4
    WHERE owner = $1 AND id = $2 AND status IN ('validating', 'in_progress') AND paused_at IS NULL";

// The reason stays: a batch that was resumed is not paused by failures alike.
const RESUME: &str = "
    UPDATE batches
    SET paused_at = NULL
    WHERE owner = $1 AND id = $2 AND status IN ('validating', 'in_progress') AND paused_at IS NOT NULL
    RETURNING canary";

// The batch may have been paused while the last of the rows ran.
const PAUSE_BY_CANARY: &str = "
    UPDATE batches
    SET canary = NULL, paused_at = COALESCE(paused_at, $2), pause_reason = $3
    WHERE id = $1";

const END_CANARY: &str = "UPDATE batches SET canary = NULL WHERE id = $1";

// A batch that was paused before, and so was resumed or is paused still, has a reason.
const PAUSE_BY_FAILURES: &str = "
    UPDATE batches
    SET paused_at = $2, pause_reason = $3
    WHERE id = $1 AND pause_reason IS NULL";

const RELEASE_LANES: &str = "UPDATE lanes SET held_from = NULL WHERE batch_id = $1 AND held_from IS NOT NULL";

pub async fn pause(tx: &mut Conn, owner: &Owner, id: BatchId, now: Timestamp) -> Result<End<Option<BatchRow>>> {
    let cause = json(&PauseCause::Requested);
    query(PAUSE).bind(owner.as_str()).bind(id.0).bind(now.0).bind(cause).execute(&mut *tx).await?;
    announce(tx).await?;
    Ok(End::Commit(batch(tx, owner, id).await?))
}

pub async fn resume(tx: &mut Conn, owner: &Owner, id: BatchId) -> Result<End<Option<BatchRow>>> {
    let resumed: Option<Option<String>> =
        query_scalar(RESUME).bind(owner.as_str()).bind(id.0).fetch_optional(&mut *tx).await?;
    // A batch that was paused before its first rows had run goes on with these alone.
    if resumed == Some(None) {
        query(RELEASE_LANES).bind(id.0).execute(&mut *tx).await?;
    }
    announce(tx).await?;
    Ok(End::Commit(batch(tx, owner, id).await?))
}

/// Pauses a batch, or lets all of its rows run, if its first rows have run. The batch is locked.
pub async fn end_canary(tx: &mut Conn, id: BatchId, counted: &Files, now: Timestamp) -> Result<()> {
    let Some(counts) = counts_of_running(counted) else { return Ok(()) };
    let Some(canary) = counted.canary.as_deref().and_then(Canary::parse) else { return Ok(()) };
    match canary.verdict(counts) {
        CanaryVerdict::Runs => return Ok(()),
        CanaryVerdict::GoesOn => {
            query(END_CANARY).bind(id.0).execute(&mut *tx).await?;
            query(RELEASE_LANES).bind(id.0).execute(&mut *tx).await?;
        }
        CanaryVerdict::Pauses => {
            let Counts { completed, failed, .. } = counts;
            let cause = PauseCause::Canary { rows: completed + failed, failed };
            tracing::info!(batch_id = %id, failed, "batch paused: the rows that run first have run");
            query(PAUSE_BY_CANARY).bind(id.0).bind(now.0).bind(json(&cause)).execute(&mut *tx).await?;
        }
    }
    announce(tx).await
}

/// Pauses a batch without a success if so many of its rows failed, all alike. The batch is locked.
pub async fn pause_if_alike(
    tx: &mut Conn,
    id: BatchId,
    counted: &Files,
    statistics: &BatchStatistics,
    rows: u64,
    now: Timestamp,
) -> Result<()> {
    let Some(counts) = counts_of_running(counted) else { return Ok(()) };
    if rows == 0 || counts.completed > 0 || counts.failed < rows {
        return Ok(());
    }
    // Of rows that an earlier version recorded there are no statistics.
    let alike = statistics.failures().only_kind().filter(|(_, rows, _)| *rows == counts.failed);
    let Some((FailureKind { code, status }, rows, sample)) = alike else { return Ok(()) };
    let (failure, said) = (code.clone(), sample.message.clone());
    let cause = PauseCause::AlikeFailures { failure, status: *status, rows, said };
    let paused = query(PAUSE_BY_FAILURES).bind(id.0).bind(now.0).bind(json(&cause)).execute(&mut *tx).await?;
    if paused.rows_affected() > 0 {
        tracing::warn!(batch_id = %id, failure = code, rows = counts.failed, "batch paused: its rows all failed alike");
        announce(tx).await?;
    }
    Ok(())
}

/// What is counted of a batch in progress with rows that are left.
fn counts_of_running(counted: &Files) -> Option<Counts> {
    let [total, completed, failed] = [counted.total, counted.completed, counted.failed].map(to_u64);
    let counts = Counts { total, completed, failed };
    (counted.status == "in_progress" && counts.owed() > 0).then_some(counts)
}

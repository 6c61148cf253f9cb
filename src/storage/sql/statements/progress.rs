//! What those who wait for a batch ask: its statistics, and what the daemons do.

use super::query::{query, query_as, query_scalar};
use super::{Conn, REPORTS};
use crate::domain::ids::{BatchId, DaemonId};
use crate::domain::owner::Owner;
use crate::storage::Result;
use crate::storage::sql::End;
use crate::storage::sql::progress::ReportRow;

const STATISTICS: &str = "
    SELECT batch_statistics.statistics
    FROM batches JOIN batch_statistics ON batch_statistics.batch_id = batches.id
    WHERE batches.owner = $1 AND batches.id = $2";

// Of a batch that is locked, so that nobody else changes them meanwhile.
const STATISTICS_OF: &str = "SELECT statistics FROM batch_statistics WHERE batch_id = $1";

const KEEP: &str = "
    INSERT INTO batch_statistics (batch_id, statistics)
    VALUES ($1, $2)
    ON CONFLICT (batch_id) DO UPDATE SET statistics = excluded.statistics";

const MODELS_OWED: &str = "
    SELECT owed.model
    FROM (
        SELECT lanes.model, lanes.last - lanes.next AS rows
        FROM batches JOIN lanes ON lanes.batch_id = batches.id
        WHERE batches.owner = $1 AND batches.id = $2 AND lanes.next < lanes.last
        UNION ALL
        SELECT leases.model, leases.owed AS rows
        FROM batches JOIN leases ON leases.batch_id = batches.id
        WHERE batches.owner = $1 AND batches.id = $2
    ) AS owed
    GROUP BY owed.model
    ORDER BY SUM(owed.rows) DESC, owed.model
    LIMIT $3";

const TELL: &str = "UPDATE daemons SET activity = $2 WHERE id = $1";

/// The statistics of a batch, as they are stored.
pub async fn statistics(conn: &mut Conn, owner: &Owner, id: BatchId) -> Result<Option<String>> {
    Ok(query_scalar(STATISTICS).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?)
}

/// The same within a transaction that has locked the batch.
pub async fn statistics_of(tx: &mut Conn, id: BatchId) -> Result<Option<String>> {
    Ok(query_scalar(STATISTICS_OF).bind(id.0).fetch_optional(tx).await?)
}

/// Replaces the statistics of a batch, within a transaction that has locked it.
pub async fn keep(tx: &mut Conn, id: BatchId, statistics: &str) -> Result<()> {
    query(KEEP).bind(id.0).bind(statistics).execute(tx).await?;
    Ok(())
}

pub async fn models_owed(conn: &mut Conn, owner: &Owner, id: BatchId, limit: u32) -> Result<Vec<String>> {
    let models = query_scalar(MODELS_OWED).bind(owner.as_str()).bind(id.0).bind(i64::from(limit));
    Ok(models.fetch_all(conn).await?)
}

pub async fn tell(tx: &mut Conn, daemon: DaemonId, activity: &str) -> Result<End<()>> {
    query(TELL).bind(daemon.0).bind(activity).execute(tx).await?;
    Ok(End::Commit(()))
}

pub async fn reports(conn: &mut Conn) -> Result<Vec<ReportRow>> {
    Ok(query_as(REPORTS).fetch_all(conn).await?)
}

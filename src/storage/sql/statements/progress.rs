//! What those who wait for a batch ask: its statistics, and what the daemons do.

use std::collections::BTreeSet;

use sqlx::QueryBuilder;
use uuid::Uuid;

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

// The lanes of a batch are few: one for each of its models.
const MODELS_IN_PROGRESS: &str = "
    SELECT DISTINCT lanes.model
    FROM batches JOIN lanes ON lanes.batch_id = batches.id
    WHERE batches.owner = $1 AND batches.status = 'in_progress'
    ORDER BY lanes.model
    LIMIT $2";

const OWNED: &str = "SELECT id FROM batches WHERE owner = ";

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

pub async fn models_in_progress(conn: &mut Conn, owner: &Owner, limit: u32) -> Result<Vec<String>> {
    let models = query_scalar(MODELS_IN_PROGRESS).bind(owner.as_str()).bind(i64::from(limit));
    Ok(models.fetch_all(conn).await?)
}

/// Those of some batches that an owner has: at most as many as the daemons tell of.
pub async fn owned(conn: &mut Conn, owner: &Owner, batches: &BTreeSet<BatchId>) -> Result<BTreeSet<Uuid>> {
    if batches.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut query = QueryBuilder::new(OWNED);
    query.push_bind(owner.as_str()).push(" AND id IN (");
    let mut ids = query.separated(", ");
    for batch in batches {
        ids.push_bind(batch.0);
    }
    ids.push_unseparated(")");
    // Its text differs with how many there are, so that it is not worth keeping prepared.
    let owned: Vec<Uuid> = query.build_query_scalar().persistent(false).fetch_all(conn).await?;
    Ok(owned.into_iter().collect())
}

pub async fn tell(tx: &mut Conn, daemon: DaemonId, activity: &str) -> Result<End<()>> {
    query(TELL).bind(daemon.0).bind(activity).execute(tx).await?;
    Ok(End::Commit(()))
}

pub async fn reports(conn: &mut Conn) -> Result<Vec<ReportRow>> {
    Ok(query_as(REPORTS).fetch_all(conn).await?)
}

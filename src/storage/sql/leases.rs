//! Lanes, leases and daemons.
//!
//! A lease is live while its daemon is: a heartbeat is one update of the daemon's row, however many leases it has, and
//! never waits for a transaction that records rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::dialect::{Announce as _, DatabaseClock as _, query, query_as, query_scalar};
use super::{End, SqlStorage, corrupt, in_write, on_reader};
use crate::domain::endpoint::Endpoint;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, BlobId, DaemonId, FileId, LeaseId};
use crate::domain::lease::{LapsedLease, Lease, OpenLane, Place};
use crate::domain::time::Timestamp;
use crate::storage::{BatchInput, Beat, FileStore as _, HeldLease, LeaseStore, Result, StorageError};

const BEAT: &str = "
    INSERT INTO daemons (id, started_at, alive_until)
    VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until";

// Long after its leases have lapsed: only to keep the table small.
const FORGET_DAEMONS: &str = "DELETE FROM daemons WHERE alive_until < $1";
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

const PLACE: &str = "
    SELECT COUNT(*) FILTER (WHERE id < $2), COUNT(*)
    FROM daemons
    WHERE alive_until > $1";

const LEAVE: &str = "DELETE FROM daemons WHERE id = $1";

const HELD: &str = "
    SELECT leases.id, leases.token, batches.status
    FROM leases JOIN batches ON batches.id = leases.batch_id
    WHERE leases.daemon_id = $1";

const OPEN_LANES: &str = "
    SELECT lanes.batch_id, lanes.no, lanes.next, lanes.last, batches.expires_at
    FROM lanes JOIN batches ON batches.id = lanes.batch_id
    WHERE lanes.next < lanes.last AND batches.status = 'in_progress'
    ORDER BY batches.expires_at, batches.id, lanes.no
    LIMIT $1";

// Compare-and-set on the cursor: of several claimers that saw the same cursor, one moves it.
const MOVE_CURSOR: &str = "
    UPDATE lanes
    SET next = next + $4
    WHERE batch_id = $1 AND no = $2 AND next = $3 AND next + $4 <= last
      AND EXISTS (SELECT 1 FROM batches WHERE id = $1 AND status = 'in_progress')
    RETURNING model";

const LEASE: &str = "
    INSERT INTO leases (id, batch_id, model, first, last, owed, daemon_id, token)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1)";

/// True of a lease that is nobody's any more: given back, or of a daemon whose last heartbeat is too long ago.
macro_rules! lapsed_at {
    ($now:literal) => {
        concat!(
            "(leases.daemon_id IS NULL OR NOT EXISTS (
                SELECT 1 FROM daemons WHERE daemons.id = leases.daemon_id AND daemons.alive_until > ",
            $now,
            "))"
        )
    };
}

const LAPSED: &str = concat!(
    "SELECT leases.id, leases.token
     FROM leases JOIN batches ON batches.id = leases.batch_id
     WHERE batches.status = 'in_progress' AND ",
    lapsed_at!("$1"),
    "
     ORDER BY batches.expires_at, leases.id
     LIMIT $2"
);

// Raises the token first; the new holder reads the ledger after this has committed, so that a late commit of the old
// holder is either in what it reads, or refused.
const TAKE_OVER: &str = concat!(
    "UPDATE leases
     SET token = token + 1, deaths = deaths + CASE WHEN daemon_id IS NULL THEN 0 ELSE 1 END, daemon_id = $3
     WHERE id = $1 AND token = $2 AND ",
    lapsed_at!("$4"),
    "
     RETURNING id, batch_id, model, first, last, token, deaths"
);

// Whoever gives a lease back has not died of the row that was alone.
const GIVE_BACK: &str = "UPDATE leases SET daemon_id = NULL, tries = 0 WHERE id = $1 AND token = $2";

const TRY_ALONE: &str = "UPDATE leases SET tries = tries + 1 WHERE id = $1 AND token = $2 RETURNING tries";

const IS_HELD: &str = "
    SELECT 1
    FROM leases JOIN daemons ON daemons.id = leases.daemon_id
    WHERE leases.batch_id = $1 AND leases.first <= $2 AND leases.last > $2 AND daemons.alive_until > $3
    LIMIT 1";

const INPUT: &str = "SELECT endpoint, input_file_id, metadata FROM batches WHERE id = $1";
const INDEX: &str = "SELECT index_blob FROM files WHERE id = $1 AND index_blob IS NOT NULL";

#[derive(sqlx::FromRow)]
struct LaneRow {
    batch_id: Uuid,
    no: i64,
    next: i64,
    last: i64,
    expires_at: i64,
}

#[derive(sqlx::FromRow)]
struct LeaseRow {
    id: Uuid,
    batch_id: Uuid,
    model: String,
    first: i64,
    last: i64,
    token: i64,
    deaths: i64,
}

impl TryFrom<LaneRow> for OpenLane {
    type Error = StorageError;

    fn try_from(row: LaneRow) -> Result<Self> {
        Ok(Self {
            batch_id: BatchId(row.batch_id),
            no: position(row.no, "lanes", row.batch_id)?,
            next: position(row.next, "lanes", row.batch_id)?,
            last: position(row.last, "lanes", row.batch_id)?,
            expires_at: Timestamp(row.expires_at),
        })
    }
}

impl TryFrom<LeaseRow> for Lease {
    type Error = StorageError;

    fn try_from(row: LeaseRow) -> Result<Self> {
        Ok(Self {
            id: LeaseId(row.id),
            batch_id: BatchId(row.batch_id),
            model: row.model,
            first: position(row.first, "leases", row.id)?,
            last: position(row.last, "leases", row.id)?,
            token: row.token,
            deaths: u32::try_from(row.deaths).unwrap_or(u32::MAX),
        })
    }
}

/// Positions and lane numbers are stored as BIGINT and are 32 bits wide.
fn position(stored: i64, table: &'static str, id: Uuid) -> Result<u32> {
    u32::try_from(stored).map_err(|_| corrupt(table, "position", id))
}

#[async_trait]
impl LeaseStore for SqlStorage {
    async fn beat(&self, daemon: DaemonId, lifetime: Duration) -> Result<Beat> {
        let (held, place): (Vec<(Uuid, i64, String)>, (i64, i64)) = in_write!(self.db, tx => {
            let now = tx.now(&self.db.clock).await?;
            query(BEAT).bind(daemon.0).bind(now.0).bind(now.plus(lifetime).0).execute(&mut *tx).await?;
            query(FORGET_DAEMONS).bind(now.minus(FORGOTTEN_AFTER).0).execute(&mut *tx).await?;
            let held = query_as(HELD).bind(daemon.0).fetch_all(&mut *tx).await?;
            End::Commit((held, query_as(PLACE).bind(now.0).bind(daemon.0).fetch_one(&mut *tx).await?))
        })?;
        let lease = |(id, token, status): (Uuid, i64, String)| {
            let runs = status == "in_progress";
            HeldLease { id: LeaseId(id), token, runs }
        };
        let few = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        let place = Place { rank: few(place.0), of: few(place.1) };
        Ok(Beat { leases: held.into_iter().map(lease).collect(), place })
    }

    async fn leave(&self, daemon: DaemonId) -> Result<()> {
        in_write!(self.db, tx => {
            query(LEAVE).bind(daemon.0).execute(&mut *tx).await?;
            End::Commit(())
        })
    }

    async fn open_lanes(&self, limit: u32) -> Result<Vec<OpenLane>> {
        let rows: Vec<LaneRow> = on_reader!(self.db, conn => {
            Ok(query_as(OPEN_LANES).bind(i64::from(limit)).fetch_all(&mut *conn).await?)
        })?;
        Ok(super::readable::readable(rows.into_iter().map(OpenLane::try_from)))
    }

    async fn claim(&self, lane: &OpenLane, rows: u32, daemon: DaemonId) -> Result<Option<Lease>> {
        let id = LeaseId::new();
        let model: Option<String> = in_write!(self.db, tx => {
            let model: Option<String> = query_scalar(MOVE_CURSOR)
                .bind(lane.batch_id.0)
                .bind(i64::from(lane.no))
                .bind(i64::from(lane.next))
                .bind(i64::from(rows))
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(model) = &model {
                query(LEASE)
                    .bind(id.0)
                    .bind(lane.batch_id.0)
                    .bind(model)
                    .bind(i64::from(lane.next))
                    .bind(i64::from(lane.next) + i64::from(rows))
                    .bind(i64::from(rows))
                    .bind(daemon.0)
                    .execute(&mut *tx)
                    .await?;
            }
            End::Commit(model)
        })?;
        let first = lane.next;
        Ok(model.map(|model| Lease {
            id,
            batch_id: lane.batch_id,
            model,
            first,
            last: first + rows,
            token: 1,
            deaths: 0,
        }))
    }

    async fn lapsed_leases(&self, limit: u32) -> Result<Vec<LapsedLease>> {
        let rows: Vec<(Uuid, i64)> = on_reader!(self.db, conn => {
            let now = conn.now(&self.db.clock).await?;
            Ok(query_as(LAPSED).bind(now.0).bind(i64::from(limit)).fetch_all(&mut *conn).await?)
        })?;
        Ok(rows.into_iter().map(|(id, token)| LapsedLease { id: LeaseId(id), token }).collect())
    }

    async fn take_over(&self, lapsed: LapsedLease, daemon: DaemonId) -> Result<Option<Lease>> {
        let row: Option<LeaseRow> = in_write!(self.db, tx => {
            let now = tx.now(&self.db.clock).await?;
            let taken = query_as(TAKE_OVER)
                .bind(lapsed.id.0)
                .bind(lapsed.token)
                .bind(daemon.0)
                .bind(now.0)
                .fetch_optional(&mut *tx)
                .await?;
            End::Commit(taken)
        })?;
        row.map(Lease::try_from).transpose()
    }

    async fn give_back(&self, id: LeaseId, token: i64) -> Result<()> {
        in_write!(self.db, tx => {
            let given = query(GIVE_BACK).bind(id.0).bind(token).execute(&mut *tx).await?;
            if given.rows_affected() > 0 {
                tx.announce().await?;
            }
            End::Commit(())
        })
    }

    async fn try_alone(&self, id: LeaseId, token: i64) -> Result<Option<u32>> {
        let tries: Option<i64> = in_write!(self.db, tx => {
            End::Commit(query_scalar(TRY_ALONE).bind(id.0).bind(token).fetch_optional(&mut *tx).await?)
        })?;
        Ok(tries.map(|tries| u32::try_from(tries).unwrap_or(u32::MAX)))
    }

    async fn is_held(&self, batch: BatchId, position: u32) -> Result<bool> {
        let held: Option<i32> = on_reader!(self.db, conn => {
            let now = conn.now(&self.db.clock).await?;
            let held = query_scalar(IS_HELD).bind(batch.0).bind(i64::from(position)).bind(now.0);
            Ok(held.fetch_optional(&mut *conn).await?)
        })?;
        Ok(held.is_some())
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

//! Lanes, leases and daemons.
//!
//! A lease is live while its daemon has a row: a heartbeat is one update of that row, however many leases there are, and
//! never waits for a transaction that records rows. No statement here reads a clock: a daemon that is silent is declared
//! dead by another, which has watched it on a monotonic clock.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::dialect::{Announce as _, query, query_as, query_scalar};
use super::{End, SqlStorage, corrupt, in_write, on_reader, to_u64};
use crate::domain::ids::{BatchId, DaemonId, LeaseId};
use crate::domain::lease::{DaemonPulse, FencedLease, LapsedLease, Lease, OpenLane};
use crate::domain::time::Timestamp;
use crate::storage::{Beat, HeldLease, LeaseStore, Result, StorageError};

const BEAT: &str = "
    INSERT INTO daemons (id, lifetime, beats)
    VALUES ($1, $2, $3)
    ON CONFLICT (id) DO UPDATE SET lifetime = excluded.lifetime, beats = daemons.beats + 1";

const DAEMONS: &str = "SELECT id, lifetime, beats FROM daemons ORDER BY id";

// The counter tells whether the daemon has beaten since it was seen silent.
const DECLARE_DEAD: &str = "DELETE FROM daemons WHERE id = $1 AND beats = $2";

const LEAVE: &str = "DELETE FROM daemons WHERE id = $1";

const HELD: &str = "
    SELECT leases.id, leases.token, batches.status
    FROM leases JOIN batches ON batches.id = leases.batch_id
    WHERE leases.daemon_id = $1";

const OPEN_LANES: &str = "
    SELECT batch_id, no, model, next, last, expires_at
    FROM (
        SELECT lanes.batch_id, lanes.no, lanes.model, lanes.next, lanes.last, batches.expires_at,
               ROW_NUMBER() OVER (
                   PARTITION BY lanes.model ORDER BY batches.expires_at, lanes.batch_id, lanes.no
               ) AS place
        FROM lanes JOIN batches ON batches.id = lanes.batch_id
        WHERE lanes.next < lanes.last AND batches.status = 'in_progress'
    ) AS open
    WHERE place <= $1
    ORDER BY place, expires_at, batch_id, no
    LIMIT $2";

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

/// True of a lease that another daemon may take over: it was given back, or its daemon was declared dead. A daemon's own
/// is never lapsed for itself, even while others hold it dead: it may be running.
macro_rules! lapsed_for {
    ($daemon:literal) => {
        concat!(
            "(leases.daemon_id IS NULL OR (leases.daemon_id <> ",
            $daemon,
            " AND NOT EXISTS (SELECT 1 FROM daemons WHERE daemons.id = leases.daemon_id)))"
        )
    };
}

const LAPSED: &str = concat!(
    "SELECT id, token, batch_id, model
     FROM (
         SELECT leases.id, leases.token, leases.batch_id, leases.model, batches.expires_at,
                ROW_NUMBER() OVER (PARTITION BY leases.model ORDER BY batches.expires_at, leases.id) AS place
         FROM leases JOIN batches ON batches.id = leases.batch_id
         WHERE batches.status = 'in_progress' AND ",
    lapsed_for!("$1"),
    "
     ) AS lapsed
     WHERE place <= $2
     ORDER BY place, expires_at, id
     LIMIT $3"
);

// Raises the token first; the new holder reads the ledger after this has committed, so that a late commit of the old
// holder is either in what it reads, or refused.
const TAKE_OVER: &str = concat!(
    "UPDATE leases
     SET token = token + 1, deaths = deaths + CASE WHEN daemon_id IS NULL THEN 0 ELSE 1 END, daemon_id = $3
     WHERE id = $1 AND token = $2 AND ",
    lapsed_for!("$3"),
    "
     RETURNING id, batch_id, model, first, last, token, owed, deaths"
);

// Whoever gives a lease back has not died of the row that was alone.
const GIVE_BACK: &str = "UPDATE leases SET daemon_id = NULL, tries = 0 WHERE id = $1 AND token = $2";

const CORRECT_OWED: &str = "UPDATE leases SET owed = $3 WHERE id = $1 AND token = $2";
const DROP_SETTLED: &str = "DELETE FROM leases WHERE id = $1 AND token = $2 AND owed = 0";

const TRY_ALONE: &str = "UPDATE leases SET tries = tries + 1 WHERE id = $1 AND token = $2 RETURNING tries";

const IS_HELD: &str = "
    SELECT 1
    FROM leases JOIN daemons ON daemons.id = leases.daemon_id
    WHERE leases.batch_id = $1 AND leases.first <= $2 AND leases.last > $2
    LIMIT 1";

#[derive(sqlx::FromRow)]
struct LaneRow {
    batch_id: Uuid,
    no: i64,
    model: String,
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
    owed: i64,
    deaths: i64,
}

impl TryFrom<LaneRow> for OpenLane {
    type Error = StorageError;

    fn try_from(row: LaneRow) -> Result<Self> {
        Ok(Self {
            batch_id: BatchId(row.batch_id),
            no: position(row.no, "lanes", row.batch_id)?,
            model: row.model.into(),
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
            owed: position(row.owed, "leases", row.id)?,
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
        let (held, daemons): (Vec<(Uuid, i64, String)>, Vec<(Uuid, i64, i64)>) = in_write!(self.db, tx => {
            // Begins anywhere: a daemon that was declared dead and lives again has another count than the one seen.
            let first = i64::from(rand::random::<u32>());
            query(BEAT).bind(daemon.0).bind(Timestamp(0).plus(lifetime).0).bind(first).execute(&mut *tx).await?;
            let held = query_as(HELD).bind(daemon.0).fetch_all(&mut *tx).await?;
            End::Commit((held, query_as(DAEMONS).fetch_all(&mut *tx).await?))
        })?;
        let lease = |(id, token, status): (Uuid, i64, String)| {
            let runs = status == "in_progress";
            HeldLease { lease: FencedLease { id: LeaseId(id), token }, runs }
        };
        let pulse = |(id, lifetime, beats): (Uuid, i64, i64)| {
            let lifetime = Duration::from_millis(to_u64(lifetime));
            DaemonPulse { id: DaemonId(id), lifetime, beats }
        };
        Ok(Beat { leases: held.into_iter().map(lease).collect(), daemons: daemons.into_iter().map(pulse).collect() })
    }

    async fn declare_dead(&self, silent: DaemonPulse) -> Result<bool> {
        in_write!(self.db, tx => {
            let declared = query(DECLARE_DEAD).bind(silent.id.0).bind(silent.beats).execute(&mut *tx).await?;
            End::Commit(declared.rows_affected() == 1)
        })
    }

    async fn leave(&self, daemon: DaemonId) -> Result<()> {
        in_write!(self.db, tx => {
            query(LEAVE).bind(daemon.0).execute(&mut *tx).await?;
            End::Commit(())
        })
    }

    async fn open_lanes(&self, of_a_model: u32, limit: u32) -> Result<Vec<OpenLane>> {
        let rows: Vec<LaneRow> = on_reader!(self.db, conn => {
            Ok(query_as(OPEN_LANES).bind(i64::from(of_a_model)).bind(i64::from(limit)).fetch_all(&mut *conn).await?)
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
            owed: rows,
            deaths: 0,
        }))
    }

    async fn lapsed_leases(&self, daemon: DaemonId, of_a_model: u32, limit: u32) -> Result<Vec<LapsedLease>> {
        let rows: Vec<(Uuid, i64, Uuid, String)> = on_reader!(self.db, conn => {
            let lapsed = query_as(LAPSED).bind(daemon.0).bind(i64::from(of_a_model)).bind(i64::from(limit));
            Ok(lapsed.fetch_all(&mut *conn).await?)
        })?;
        let lapsed = |(id, token, batch, model): (Uuid, i64, Uuid, String)| LapsedLease {
            lease: FencedLease { id: LeaseId(id), token },
            batch_id: BatchId(batch),
            model: model.into(),
        };
        Ok(rows.into_iter().map(lapsed).collect())
    }

    async fn take_over(&self, lapsed: FencedLease, daemon: DaemonId) -> Result<Option<Lease>> {
        let row: Option<LeaseRow> = in_write!(self.db, tx => {
            let taken = query_as(TAKE_OVER).bind(lapsed.id.0).bind(lapsed.token).bind(daemon.0);
            End::Commit(taken.fetch_optional(&mut *tx).await?)
        })?;
        row.map(Lease::try_from).transpose()
    }

    async fn give_back(&self, lease: FencedLease) -> Result<()> {
        let given = in_write!(self.db, tx => {
            let given = query(GIVE_BACK).bind(lease.id.0).bind(lease.token).execute(&mut *tx).await?;
            if given.rows_affected() > 0 {
                tx.announce().await?;
            }
            End::Commit(())
        });
        #[cfg(feature = "failpoints")]
        if crate::fault::late("lease.given-back").await {
            // It was given back, and its holder learns of it late or not at all.
            return Err(super::db::fault(None));
        }
        given
    }

    async fn correct_owed(&self, lease: FencedLease, owed: u32) -> Result<()> {
        in_write!(self.db, tx => {
            query(CORRECT_OWED)
                .bind(lease.id.0)
                .bind(lease.token)
                .bind(i64::from(owed))
                .execute(&mut *tx)
                .await?;
            query(DROP_SETTLED).bind(lease.id.0).bind(lease.token).execute(&mut *tx).await?;
            End::Commit(())
        })
    }

    async fn try_alone(&self, lease: FencedLease) -> Result<Option<u32>> {
        let tries: Option<i64> = in_write!(self.db, tx => {
            End::Commit(query_scalar(TRY_ALONE).bind(lease.id.0).bind(lease.token).fetch_optional(&mut *tx).await?)
        })?;
        Ok(tries.map(|tries| u32::try_from(tries).unwrap_or(u32::MAX)))
    }

    async fn is_held(&self, batch: BatchId, position: u32) -> Result<bool> {
        let held: Option<i32> = on_reader!(self.db, conn => {
            let held = query_scalar(IS_HELD).bind(batch.0).bind(i64::from(position));
            Ok(held.fetch_optional(&mut *conn).await?)
        })?;
        Ok(held.is_some())
    }
}

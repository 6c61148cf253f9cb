//! Lanes, leases and daemons.
//!
//! A lease is live while its daemon has a row: a heartbeat is one update of that row, however many leases there are,
//! and never waits for a transaction that records rows. No lease depends on a clock: a daemon that is silent is
//! declared dead by another, which has watched it on a monotonic clock.

use std::time::Duration;

use uuid::Uuid;

use super::query::{announce, query, query_as, query_scalar};
use super::{BEAT, Conn, LOCK_LEASE};
use crate::domain::ids::{BatchId, DaemonId, LeaseId};
use crate::domain::lease::{DaemonPulse, LapsedLease, Lease, LeaseHold, LeaseOrder, OpenLane};
use crate::domain::owner::Owner;
use crate::domain::time::Timestamp;
use crate::storage::sql::leases::{BacklogRow, LaneRow, LeaseRow};
use crate::storage::sql::{End, to_u64};
use crate::storage::{Beat, HeldLease, Result};

const DAEMONS: &str = "SELECT id, lifetime, beats FROM daemons ORDER BY id";

// The counter tells whether the daemon has beaten since it was seen silent.
const DECLARE_DEAD: &str = "DELETE FROM daemons WHERE id = $1 AND beats = $2";

const LEAVE: &str = "DELETE FROM daemons WHERE id = $1";

const HELD: &str = "
    SELECT leases.id, leases.token, batches.status, batches.paused_at
    FROM leases JOIN batches ON batches.id = leases.batch_id
    WHERE leases.daemon_id = $1";

// Those whose windows close first, and the smallest, so that a small batch is never behind many large ones.
const OPEN_LANES: &str = "
    SELECT batch_id, no, model, next, last, expires_at
    FROM (
        SELECT lanes.batch_id, lanes.no, lanes.model, lanes.next, COALESCE(lanes.held_from, lanes.last) AS last,
               batches.expires_at,
               ROW_NUMBER() OVER (
                   PARTITION BY lanes.model, batches.owner ORDER BY batches.expires_at, lanes.batch_id, lanes.no
               ) AS by_window,
               ROW_NUMBER() OVER (
                   PARTITION BY lanes.model, batches.owner
                   ORDER BY lanes.last - lanes.next, batches.expires_at, lanes.batch_id, lanes.no
               ) AS by_size
        FROM lanes JOIN batches ON batches.id = lanes.batch_id
        WHERE lanes.next < lanes.last AND batches.status = 'in_progress' AND batches.paused_at IS NULL
          AND lanes.next < COALESCE(lanes.held_from, lanes.last)
    ) AS open
    WHERE by_window <= $1 OR by_size <= $1
    ORDER BY CASE WHEN by_window < by_size THEN by_window ELSE by_size END, expires_at, batch_id, no
    LIMIT $2";

// A row is in a lane until it is claimed, and in a lease from then until it has a result. Positions have 32 bits: what
// has more is corrupt, and would hide how many rows wait.
const BACKLOGS: &str = "
    SELECT model, CAST(SUM(rows) AS BIGINT) AS rows,
           MIN(created_at) AS oldest_created_at, MIN(expires_at) AS first_expires_at
    FROM (
        SELECT lanes.model, COALESCE(lanes.held_from, lanes.last) - lanes.next AS rows,
               batches.created_at, batches.expires_at
        FROM lanes JOIN batches ON batches.id = lanes.batch_id
        WHERE lanes.next < lanes.last AND batches.status = 'in_progress' AND batches.paused_at IS NULL
          AND lanes.next < COALESCE(lanes.held_from, lanes.last) AND lanes.next >= 0 AND lanes.last <= 4294967295
        UNION ALL
        SELECT leases.model, leases.owed AS rows, batches.created_at, batches.expires_at
        FROM leases JOIN batches ON batches.id = leases.batch_id
        WHERE batches.status = 'in_progress' AND batches.paused_at IS NULL AND leases.owed BETWEEN 0 AND 4294967295
    ) AS without_result
    GROUP BY model
    ORDER BY 2 DESC, model
    LIMIT $1";

// Compare-and-set on the cursor: of several claimers that saw the same cursor, one moves it.
const MOVE_CURSOR: &str = "
    UPDATE lanes
    SET next = next + $4
    WHERE batch_id = $1 AND no = $2 AND next = $3 AND next + $4 <= COALESCE(held_from, last)
      AND EXISTS (SELECT 1 FROM batches WHERE id = $1 AND status = 'in_progress' AND paused_at IS NULL)
    RETURNING model";

const LEASE: &str = "
    INSERT INTO leases (id, batch_id, model, first, last, owed, daemon_id, token)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 1)";

/// True of a lease that another daemon may take over: it was given back, or its daemon was declared dead. A daemon's
/// own is never lapsed for itself, even while others hold it dead: it may be running.
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
         WHERE batches.status = 'in_progress' AND batches.paused_at IS NULL AND ",
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

// Whoever gives a lease back has not died of the row that was in quarantine.
const GIVE_BACK: &str = "UPDATE leases SET daemon_id = NULL, tries = 0 WHERE id = $1 AND token = $2";

const CORRECT_OWED: &str = "UPDATE leases SET owed = $3 WHERE id = $1 AND token = $2";
const DROP_SETTLED: &str = "DELETE FROM leases WHERE id = $1 AND token = $2 AND owed = 0";

const TRY_IN_QUARANTINE: &str = "UPDATE leases SET tries = tries + 1 WHERE id = $1 AND token = $2 RETURNING tries";

const IS_HELD: &str = "
    SELECT 1
    FROM batches
    JOIN leases ON leases.batch_id = batches.id
    JOIN daemons ON daemons.id = leases.daemon_id
    WHERE batches.owner = $1 AND batches.id = $2 AND leases.first <= $3 AND leases.last > $3
    LIMIT 1";

pub async fn beat(tx: &mut Conn, daemon: DaemonId, lifetime: Duration) -> Result<End<Beat>> {
    // Begins anywhere: a daemon that was declared dead and lives again has another count than the one seen.
    let first = i64::from(rand::random::<u32>());
    query(BEAT).bind(daemon.0).bind(Timestamp(0).plus(lifetime).0).bind(first).execute(&mut *tx).await?;
    Ok(End::Commit(Beat { leases: held(tx, daemon).await?, daemons: daemons(tx).await? }))
}

async fn held(tx: &mut Conn, daemon: DaemonId) -> Result<Vec<HeldLease>> {
    let held: Vec<(Uuid, i64, String, Option<i64>)> = query_as(HELD).bind(daemon.0).fetch_all(tx).await?;
    let lease = |(id, token, status, paused_at): (Uuid, i64, String, Option<i64>)| {
        let order = match paused_at {
            _ if status != "in_progress" => LeaseOrder::Halt,
            Some(_) => LeaseOrder::Drain,
            None => LeaseOrder::Run,
        };
        HeldLease { lease: LeaseHold { id: LeaseId(id), token }, order }
    };
    Ok(held.into_iter().map(lease).collect())
}

async fn daemons(tx: &mut Conn) -> Result<Vec<DaemonPulse>> {
    let daemons: Vec<(Uuid, i64, i64)> = query_as(DAEMONS).fetch_all(tx).await?;
    let pulse = |(id, lifetime, beats): (Uuid, i64, i64)| {
        let lifetime = Duration::from_millis(to_u64(lifetime));
        DaemonPulse { id: DaemonId(id), lifetime, beats }
    };
    Ok(daemons.into_iter().map(pulse).collect())
}

pub async fn declare_dead(tx: &mut Conn, silent: DaemonPulse) -> Result<End<bool>> {
    let declared = query(DECLARE_DEAD).bind(silent.id.0).bind(silent.beats).execute(tx).await?;
    Ok(End::Commit(declared.rows_affected() == 1))
}

pub async fn leave(tx: &mut Conn, daemon: DaemonId) -> Result<End<()>> {
    query(LEAVE).bind(daemon.0).execute(tx).await?;
    Ok(End::Commit(()))
}

pub async fn open_lanes(conn: &mut Conn, of_a_model: u32, limit: u32) -> Result<Vec<LaneRow>> {
    Ok(query_as(OPEN_LANES).bind(i64::from(of_a_model)).bind(i64::from(limit)).fetch_all(conn).await?)
}

pub async fn backlogs(conn: &mut Conn, limit: u32) -> Result<Vec<BacklogRow>> {
    Ok(query_as(BACKLOGS).bind(i64::from(limit)).fetch_all(conn).await?)
}

pub async fn claim(tx: &mut Conn, lane: &OpenLane, rows: u32, daemon: DaemonId) -> Result<End<Option<Lease>>> {
    let model: Option<String> = query_scalar(MOVE_CURSOR)
        .bind(lane.batch_id.0)
        .bind(i64::from(lane.no))
        .bind(i64::from(lane.next))
        .bind(i64::from(rows))
        .fetch_optional(&mut *tx)
        .await?;
    let Some(model) = model else { return Ok(End::Commit(None)) };
    let (first, last) = (lane.next, lane.next + rows);
    let lease =
        Lease { id: LeaseId::new(), batch_id: lane.batch_id, model, first, last, token: 1, owed: rows, deaths: 0 };
    insert(tx, &lease, daemon).await?;
    Ok(End::Commit(Some(lease)))
}

async fn insert(tx: &mut Conn, lease: &Lease, daemon: DaemonId) -> Result<()> {
    query(LEASE)
        .bind(lease.id.0)
        .bind(lease.batch_id.0)
        .bind(&lease.model)
        .bind(i64::from(lease.first))
        .bind(i64::from(lease.last))
        .bind(i64::from(lease.owed))
        .bind(daemon.0)
        .execute(tx)
        .await?;
    Ok(())
}

pub async fn lapsed(conn: &mut Conn, daemon: DaemonId, of_a_model: u32, limit: u32) -> Result<Vec<LapsedLease>> {
    let lapsed = query_as(LAPSED).bind(daemon.0).bind(i64::from(of_a_model)).bind(i64::from(limit));
    let rows: Vec<(Uuid, i64, Uuid, String)> = lapsed.fetch_all(conn).await?;
    let lapsed = |(id, token, batch, model): (Uuid, i64, Uuid, String)| LapsedLease {
        lease: LeaseHold { id: LeaseId(id), token },
        batch_id: BatchId(batch),
        model: model.into(),
    };
    Ok(rows.into_iter().map(lapsed).collect())
}

pub async fn take_over(tx: &mut Conn, lapsed: LeaseHold, daemon: DaemonId) -> Result<End<Option<LeaseRow>>> {
    let taken = query_as(TAKE_OVER).bind(lapsed.id.0).bind(lapsed.token).bind(daemon.0);
    Ok(End::Commit(taken.fetch_optional(tx).await?))
}

pub async fn give_back(tx: &mut Conn, lease: LeaseHold) -> Result<End<()>> {
    let given = query(GIVE_BACK).bind(lease.id.0).bind(lease.token).execute(&mut *tx).await?;
    if given.rows_affected() > 0 {
        announce(tx).await?;
    }
    Ok(End::Commit(()))
}

pub async fn correct_owed(tx: &mut Conn, lease: LeaseHold, owed: u32) -> Result<End<()>> {
    query(CORRECT_OWED).bind(lease.id.0).bind(lease.token).bind(i64::from(owed)).execute(&mut *tx).await?;
    query(DROP_SETTLED).bind(lease.id.0).bind(lease.token).execute(tx).await?;
    Ok(End::Commit(()))
}

pub async fn try_in_quarantine(tx: &mut Conn, lease: LeaseHold) -> Result<End<Option<u32>>> {
    let tries: Option<i64> =
        query_scalar(TRY_IN_QUARANTINE).bind(lease.id.0).bind(lease.token).fetch_optional(tx).await?;
    Ok(End::Commit(tries.map(|tries| u32::try_from(tries).unwrap_or(u32::MAX))))
}

pub async fn is_held(conn: &mut Conn, owner: &Owner, batch: BatchId, position: u32) -> Result<bool> {
    let held = query_scalar(IS_HELD).bind(owner.as_str()).bind(batch.0).bind(i64::from(position));
    let held: Option<i32> = held.fetch_optional(conn).await?;
    Ok(held.is_some())
}

/// Whether the lease is held with this token, which then stays so until the transaction ends.
pub async fn lock(tx: &mut Conn, lease: LeaseHold) -> Result<bool> {
    let held: Option<i32> = query_scalar(LOCK_LEASE).bind(lease.id.0).bind(lease.token).fetch_optional(tx).await?;
    Ok(held.is_some())
}

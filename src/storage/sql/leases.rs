//! Lanes, leases and daemons.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::readable::readable;
use super::{SqlStorage, corrupt, in_write, on_reader};
use crate::domain::ids::{BatchId, DaemonId, LeaseId};
use crate::domain::lease::{DaemonPulse, LapsedLease, Lease, LeaseHold, OpenLane};
use crate::domain::owner::Owner;
use crate::domain::time::Timestamp;
use crate::storage::{Beat, LeaseStore, ModelBacklog, Result, StorageError};

#[derive(sqlx::FromRow)]
pub(super) struct LaneRow {
    batch_id: Uuid,
    no: i64,
    model: String,
    next: i64,
    last: i64,
    expires_at: i64,
}

#[derive(sqlx::FromRow)]
pub(super) struct LeaseRow {
    id: Uuid,
    batch_id: Uuid,
    model: String,
    first: i64,
    last: i64,
    token: i64,
    owed: i64,
    deaths: i64,
}

#[derive(sqlx::FromRow)]
pub(super) struct BacklogRow {
    model: String,
    rows: i64,
    oldest_created_at: i64,
    first_expires_at: i64,
}

impl From<BacklogRow> for ModelBacklog {
    fn from(row: BacklogRow) -> Self {
        Self {
            model: row.model,
            rows: u64::try_from(row.rows).unwrap_or_default(),
            oldest_created_at: Timestamp(row.oldest_created_at),
            first_expires_at: Timestamp(row.first_expires_at),
        }
    }
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
        in_write!(self.db, leases::beat(daemon, lifetime))
    }

    async fn declare_dead(&self, silent: DaemonPulse) -> Result<bool> {
        in_write!(self.db, leases::declare_dead(silent))
    }

    async fn leave(&self, daemon: DaemonId) -> Result<()> {
        in_write!(self.db, leases::leave(daemon))
    }

    async fn open_lanes(&self, of_a_model: u32, limit: u32) -> Result<Vec<OpenLane>> {
        let rows = on_reader!(self.db, leases::open_lanes(of_a_model, limit))?;
        Ok(readable(rows.into_iter().map(OpenLane::try_from)))
    }

    async fn backlogs(&self, limit: u32) -> Result<Vec<ModelBacklog>> {
        let rows = on_reader!(self.db, leases::backlogs(limit))?;
        Ok(rows.into_iter().map(ModelBacklog::from).collect())
    }

    async fn claim(&self, lane: &OpenLane, rows: u32, daemon: DaemonId) -> Result<Option<Lease>> {
        in_write!(self.db, leases::claim(lane, rows, daemon))
    }

    async fn lapsed_leases(&self, daemon: DaemonId, of_a_model: u32, limit: u32) -> Result<Vec<LapsedLease>> {
        on_reader!(self.db, leases::lapsed(daemon, of_a_model, limit))
    }

    async fn take_over(&self, lapsed: LeaseHold, daemon: DaemonId) -> Result<Option<Lease>> {
        let row = in_write!(self.db, leases::take_over(lapsed, daemon))?;
        row.map(Lease::try_from).transpose()
    }

    async fn give_back(&self, lease: LeaseHold) -> Result<()> {
        let given = in_write!(self.db, leases::give_back(lease));
        #[cfg(feature = "failpoints")]
        if crate::fault::late("lease.given-back").await {
            // It was given back, and its holder learns of it late or not at all.
            return Err(super::db::fault(None));
        }
        given
    }

    async fn correct_owed(&self, lease: LeaseHold, owed: u32) -> Result<()> {
        in_write!(self.db, leases::correct_owed(lease, owed))
    }

    async fn try_in_quarantine(&self, lease: LeaseHold) -> Result<Option<u32>> {
        in_write!(self.db, leases::try_in_quarantine(lease))
    }

    async fn is_held(&self, owner: &Owner, batch: BatchId, position: u32) -> Result<bool> {
        on_reader!(self.db, leases::is_held(owner, batch, position))
    }
}

//! Which daemon runs what, and which daemons live.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;
use crate::domain::ids::{BatchId, DaemonId};
use crate::domain::lease::{DaemonPulse, LapsedLease, Lease, LeaseHold, LeaseOrder, OpenLane};
use crate::domain::owner::Owner;
use crate::domain::time::Timestamp;

/// A lease as the heartbeat finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    /// The lease, and the token it is held with.
    pub lease: LeaseHold,
    /// What its holder may do with it, as its batch stands.
    pub order: LeaseOrder,
}

/// What a heartbeat finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The leases that are the daemon's own.
    pub leases: Vec<HeldLease>,
    /// Every daemon that is not known to be dead, this one included, in the order of their ids.
    pub daemons: Vec<DaemonPulse>,
}

/// The rows of one model that have no result yet and may run, of all batches in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelBacklog {
    /// The model's name, as the rows have it.
    pub model: String,
    /// How many rows there are, those under way included.
    pub rows: u64,
    /// When the first of their batches was created.
    pub oldest_created_at: Timestamp,
    /// When the first of their windows closes.
    pub first_expires_at: Timestamp,
}

/// Lanes, leases and daemons: who runs what.
///
/// No clock is read here. A daemon counts as alive until another has seen it silent for its lifetime, on a monotonic
/// clock of its own, and declares it dead: no step of a wall clock, of a daemon's host or of the database's, ends a
/// lease.
#[async_trait]
pub trait LeaseStore {
    /// Says that a daemon lives, and that it is dead once it has been silent for `lifetime`. Returns which leases are
    /// its own.
    async fn beat(&self, daemon: DaemonId, lifetime: Duration) -> Result<Beat>;

    /// Declares a daemon dead that has not beaten since it was seen like this: its leases can be taken over. False if
    /// it has beaten since. A daemon that was declared dead by mistake lives again with its next beat.
    async fn declare_dead(&self, silent: DaemonPulse) -> Result<bool>;

    /// Says that a daemon works no more. What it still holds can be taken over at once.
    async fn leave(&self, daemon: DaemonId) -> Result<()>;

    /// Lanes of batches in progress, and not paused, with rows that may be claimed: of each model and owner up to
    /// `of_a_model` whose windows close first, and up to as many with the fewest rows. The first lane of every model
    /// and owner comes before the second of any. So neither a model nor an owner hides another, and many large batches
    /// hide no small one.
    async fn open_lanes(&self, of_a_model: u32, limit: u32) -> Result<Vec<OpenLane>>;

    /// The backlog of each model, the largest first, up to `limit` models. Costs as much as there are open lanes and
    /// leases, however many rows these have.
    async fn backlogs(&self, limit: u32) -> Result<Vec<ModelBacklog>>;

    /// Claims the next `rows` rows of a lane. `None` if the lane's cursor is not where `lane` has it, or the batch is
    /// paused or not in progress any more: look again.
    async fn claim(&self, lane: &OpenLane, rows: u32, daemon: DaemonId) -> Result<Option<Lease>>;

    /// Leases of batches in progress, and not paused, that `daemon` may take over: those whose daemon is dead or gave
    /// them back. Never its own, which it runs, or gives back with its next heartbeats. In the order of
    /// [`LeaseStore::open_lanes`].
    async fn lapsed_leases(&self, daemon: DaemonId, of_a_model: u32, limit: u32) -> Result<Vec<LapsedLease>>;

    /// Takes a lapsed lease over. From then on its former holder can record nothing under it, so its rows without an
    /// entry in the ledger are the new holder's. `None` if somebody was faster, or if the lease is the daemon's own.
    async fn take_over(&self, lapsed: LeaseHold, daemon: DaemonId) -> Result<Option<Lease>>;

    /// Gives a lease back, for others to take over at once. Nothing happens if it is lost already.
    async fn give_back(&self, lease: LeaseHold) -> Result<()>;

    /// Sets how many rows a lease owes to what its holder has found in the ledger; one that owes none ends. Nothing
    /// happens if it is lost already.
    async fn correct_owed(&self, lease: LeaseHold, owed: u32) -> Result<()>;

    /// Notes that the first owed row of a lease is about to run in quarantine, and returns how often it has, this time
    /// included. Recording it, or giving the lease back, sets the count back. `None` if the lease is lost.
    async fn try_in_quarantine(&self, lease: LeaseHold) -> Result<Option<u32>>;

    /// Whether a daemon that lives has the row at this position of the index of the owner's batch. False once the row
    /// is recorded and its lease has ended.
    async fn is_held(&self, owner: &Owner, batch: BatchId, position: u32) -> Result<bool>;
}

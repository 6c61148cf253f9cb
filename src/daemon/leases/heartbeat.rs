//! Showing that the daemon lives, and learning what of its leases and of the upstream is its own, and who is dead.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::peers::Peers;
use super::{HeldLeases, LeaseValidity};
use crate::daemon::rows::{FairShare, Queue, RowRunner};
use crate::daemon::shared::DaemonCore;
use crate::daemon::timer::TickResult;
use crate::domain::ids::DaemonId;
use crate::domain::lease::{DaemonPulse, DaemonRank};
use crate::storage::Storage;
use crate::telemetry::{chain, metrics};

/// How often the heart beats. A cancel made elsewhere is noticed at the next beat.
pub(in crate::daemon) const EVERY: Duration = Duration::from_millis(800);

/// Beats for a daemon.
pub(in crate::daemon) struct Heartbeat<S> {
    shared: Arc<DaemonCore<S>>,
    held: Arc<HeldLeases>,
    validity: Arc<LeaseValidity>,
    queue: Arc<Queue>,
    share: FairShare,
    peers: Mutex<Peers>,
}

impl<S: Storage> Heartbeat<S> {
    pub(in crate::daemon) fn new<P>(runner: &RowRunner<S, P>, held: Arc<HeldLeases>) -> Self {
        Self {
            shared: runner.shared.clone(),
            held,
            validity: runner.validity.clone(),
            queue: runner.queue.clone(),
            share: FairShare::new(runner.shared.settings.max_concurrency),
            peers: Mutex::default(),
        }
    }

    /// Beats once, halts leases that are lost or whose batch is over, and declares silent daemons dead.
    pub(in crate::daemon) async fn beat(&self) -> TickResult {
        let DaemonCore { id, storage, settings, wakeup, .. } = &*self.shared;
        let before = self.held.all();
        let asked = Instant::now();
        let lifetime = settings.lease;
        // A beat that is not answered in time is given up for another: the leases must not lapse over one lost packet.
        let beat = tokio::time::timeout(lifetime / 3, storage.beat(*id, lifetime)).await??;
        self.validity.extend(asked, lifetime);
        if let Some(limit) = settings.global_max_concurrency {
            self.follow_share(rank(*id, &beat.daemons).share_of(limit), asked);
        }
        self.held.halt_all_but(&before, &beat.leases);
        for unclaimed in self.held.unclaimed(&beat.leases, Instant::now()) {
            tracing::warn!(lease_id = %unclaimed.id, token = unclaimed.token, "a lease that nobody runs is given back");
            // The heart must beat on: a lease that is left is unclaimed at the next beat too.
            let given = tokio::time::timeout(lifetime / 3, storage.give_back(unclaimed)).await;
            if !matches!(given, Ok(Ok(()))) {
                tracing::error!(lease_id = %unclaimed.id, "a lease could not be given back");
                break;
            }
        }
        let silent = {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.observe(*id, &beat.daemons, Instant::now())
        };
        for peer in silent {
            if storage.declare_dead(peer).await? {
                tracing::warn!(daemon_id = %peer.id, "a daemon was silent for its lease time: its leases can be taken over");
                wakeup.wake();
            }
        }
        Ok(())
    }

    /// Tells the others that this daemon is gone.
    pub(in crate::daemon) async fn leave(&self) {
        if let Err(error) = self.shared.storage.leave(self.shared.id).await {
            tracing::warn!(
                error = chain(&error),
                "the others learn only from its silence that this daemon has stopped"
            );
        }
    }

    fn follow_share(&self, share: usize, at: Instant) {
        let registry = &self.shared.registry;
        let before = registry.limit();
        self.share.follow(registry, share, at);
        let now = registry.limit();
        self.queue.set_permits(now);
        metrics::concurrency_limited_to(now);
        if now == 0 {
            self.held.halt_all();
        } else if before == 0 {
            // The claim loop waits for a share.
            self.shared.wakeup.wake();
        }
    }
}

fn rank(me: DaemonId, daemons: &[DaemonPulse]) -> DaemonRank {
    let few = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let rank = daemons.iter().filter(|daemon| daemon.id < me).count();
    DaemonRank { rank: few(rank), of: few(daemons.len()) }
}

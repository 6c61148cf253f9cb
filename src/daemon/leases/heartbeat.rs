//! The heartbeat: it shows the other daemons that this one lives, and learns which leases it still holds, what share of
//! the upstream it has, and which daemons are dead.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::peers::Peers;
use super::{HeldLeases, LeaseValidity};
use crate::daemon::activity::ActivityReporter;
use crate::daemon::core::DaemonCore;
use crate::daemon::recording::ModelCourses;
use crate::daemon::rows::{FairShare, Queue, RowRunner};
use crate::daemon::timer::{TickResult, Timer};
use crate::domain::ids::DaemonId;
use crate::domain::lease::{DaemonPulse, DaemonRank};
use crate::storage::{HeldLease, Storage, StorageError};
use crate::sync::lock;
use crate::telemetry::{Liveness, chain};

/// How often the heart beats. A cancel or a pause made elsewhere is noticed at the next beat.
pub(super) const EVERY: Duration = Duration::from_millis(800);

/// Beats for a daemon.
pub(in crate::daemon) struct Heartbeat<S> {
    shared: Arc<DaemonCore<S>>,
    held: Arc<HeldLeases>,
    validity: Arc<LeaseValidity>,
    queue: Arc<Queue>,
    share: FairShare,
    peers: Mutex<Peers>,
    reporter: ActivityReporter<S>,
}

impl<S: Storage> Heartbeat<S> {
    pub(in crate::daemon) fn new<P>(
        runner: &RowRunner<S, P>,
        held: Arc<HeldLeases>,
        courses: Arc<ModelCourses>,
    ) -> Self {
        Self {
            shared: runner.shared.clone(),
            held,
            validity: runner.validity.clone(),
            queue: runner.queue.clone(),
            share: FairShare::new(runner.shared.settings.max_concurrency),
            peers: Mutex::default(),
            reporter: ActivityReporter::new(runner, courses),
        }
    }

    /// Beats until the last lease is given back, which may be long after the daemon was told to stop. Then the other
    /// daemons learn that this one is gone.
    pub(in crate::daemon) async fn run(self, liveness: Liveness) {
        let DaemonCore { wakeup, shutdown, .. } = &*self.shared;
        let timer = Timer::new("heartbeat", EVERY, wakeup, &shutdown.ended, &liveness);
        timer.run(|| self.beat()).await;
        self.leave().await;
    }

    /// Beats once, ends the runs of leases that are lost or whose batch is over or paused, and declares silent daemons
    /// dead.
    async fn beat(&self) -> TickResult {
        let DaemonCore { id, storage, settings, .. } = &*self.shared;
        let before = self.held.all();
        let asked = Instant::now();
        let lifetime = settings.lease;
        // A beat without an answer is given up in time for another, so that no lease lapses over one lost packet.
        let beat = tokio::time::timeout(lifetime / 3, storage.beat(*id, lifetime)).await??;
        self.validity.extend(asked, lifetime);
        let daemons = u32::try_from(beat.daemons.len()).unwrap_or(u32::MAX);
        self.shared.living_daemons.store(daemons.max(1), Relaxed);
        if let Some(limit) = settings.global_max_concurrency {
            self.follow_share(rank(*id, &beat.daemons).share_of(limit), asked);
        }
        self.held.obey(&before, &beat.leases);
        self.give_unclaimed_back(&beat.leases).await;
        self.declare_dead(&beat.daemons).await?;
        // Nothing but the view of those who wait depends on it, so that the next beat does not wait for it.
        let told = tokio::time::timeout(EVERY, self.reporter.tell()).await;
        if !matches!(told, Ok(Ok(()))) {
            tracing::debug!("the daemon could not tell what it does");
        }
        Ok(())
    }

    async fn give_unclaimed_back(&self, in_database: &[HeldLease]) {
        let DaemonCore { storage, settings, .. } = &*self.shared;
        for unclaimed in self.held.unclaimed(in_database, Instant::now()) {
            tracing::warn!(lease_id = %unclaimed.id, token = unclaimed.token, "a lease that nobody runs is given back");
            // The heart must beat on, so one attempt has to do: the lease is unclaimed at the next beat too.
            let given = tokio::time::timeout(settings.lease / 3, storage.give_back(unclaimed)).await;
            if !matches!(given, Ok(Ok(()))) {
                tracing::error!(lease_id = %unclaimed.id, "a lease could not be given back");
                break;
            }
        }
    }

    async fn declare_dead(&self, daemons: &[DaemonPulse]) -> Result<(), StorageError> {
        let DaemonCore { id, storage, wakeup, .. } = &*self.shared;
        let silent = lock(&self.peers).observe(*id, daemons, Instant::now());
        for peer in silent {
            if storage.declare_dead(peer).await? {
                tracing::warn!(
                    daemon_id = %peer.id,
                    "a daemon was silent for its lease time: its leases can be taken over"
                );
                wakeup.wake();
            }
        }
        Ok(())
    }

    async fn leave(&self) {
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
        self.queue.servers_changed();
        if now == 0 {
            self.held.halt_all();
        } else if before == 0 {
            // The claim loop waits for a share, and is told that there is one.
            self.shared.wakeup.wake();
        }
    }
}

/// The place of this daemon among those that live, by their ids.
fn rank(me: DaemonId, daemons: &[DaemonPulse]) -> DaemonRank {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let rank = daemons.iter().filter(|daemon| daemon.id < me).count();
    DaemonRank { rank: number(rank), of: number(daemons.len()) }
}

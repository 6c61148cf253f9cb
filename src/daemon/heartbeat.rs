//! Showing that the daemon lives, and learning what of its leases and of the upstream is its own, and who is dead.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::duty::Turn;
use crate::domain::ids::DaemonId;
use crate::domain::lease::{DaemonPulse, DaemonRank};
use crate::storage::Storage;
use crate::telemetry::metrics;

/// How often the heart beats. A cancel made elsewhere is noticed at the next beat.
pub(super) const EVERY: Duration = Duration::from_millis(800);

/// Beats once, halts leases that are lost or whose batch is over, and declares silent daemons dead.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    let before = context.held.all();
    let asked = Instant::now();
    let lifetime = context.settings.lease;
    // A beat that is not answered in time is given up for another: the line must not run out over one lost packet.
    let beat = tokio::time::timeout(lifetime / 3, context.storage.beat(context.id, lifetime)).await??;
    context.lifeline.extend(asked, lifetime);
    if let Some(limit) = context.settings.global_max_concurrency {
        let before = context.limiter.limit();
        context.share.follow(&context.limiter, place(context.id, &beat.daemons).share_of(limit), asked);
        let now = context.limiter.limit();
        context.queue.set_permits(now);
        metrics::concurrency_limited_to(now);
        if now == 0 {
            context.held.halt_all();
        } else if before == 0 {
            context.wakeup.wake();
        }
    }
    context.held.halt_all_but(&before, &beat.leases);
    for stray in context.held.strays(&beat.leases, Instant::now()) {
        tracing::warn!(lease_id = %stray.id, token = stray.token, "a lease that nobody runs is given back");
        // The heart must beat on: what is left is a stray at the next beat too.
        let given = tokio::time::timeout(lifetime / 3, context.storage.give_back(stray)).await;
        if !matches!(given, Ok(Ok(()))) {
            tracing::error!(lease_id = %stray.id, "a lease could not be given back");
            break;
        }
    }
    let silent = {
        let mut peers = context.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.observe(context.id, &beat.daemons, Instant::now())
    };
    for peer in silent {
        if context.storage.declare_dead(peer).await? {
            tracing::warn!(daemon_id = %peer.id, "a daemon was silent for its lifetime: its leases can be taken over");
            context.wakeup.wake();
        }
    }
    Ok(())
}

fn place(me: DaemonId, daemons: &[DaemonPulse]) -> DaemonRank {
    let few = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let rank = daemons.iter().filter(|daemon| daemon.id < me).count();
    DaemonRank { rank: few(rank), of: few(daemons.len()) }
}

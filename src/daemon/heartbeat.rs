//! Showing that the daemon lives, and learning what of its leases and of the upstream is its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::duty::Turn;
use crate::storage::Storage;

/// How often the heart beats. A cancel made elsewhere is noticed at the next beat.
pub(super) const EVERY: Duration = Duration::from_millis(800);

/// Beats once, and halts leases that are lost or whose batch is over.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    let before = context.held.ids();
    let asked = Instant::now();
    let lifetime = context.settings.lease;
    // A beat that is not answered in time is given up for another: the line must not run out over one lost packet.
    let beat = tokio::time::timeout(lifetime / 3, context.storage.beat(context.id, lifetime)).await??;
    context.lifeline.extend(asked, lifetime);
    if let Some(limit) = context.settings.global_max_concurrency {
        context.limit.follow(beat.place.share_of(limit), asked);
        if context.limit.now() == 0 {
            context.held.halt_all();
        }
    }
    context.held.halt_all_but(&before, &beat.leases);
    for stray in context.held.strays(&beat.leases, Instant::now()) {
        tracing::warn!(lease_id = %stray.id, "a lease that nobody runs is given back");
        context.storage.give_back(stray.id, stray.token).await?;
    }
    Ok(())
}

//! Showing that the daemon lives, and learning which of its leases it should not run any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::duty::Turn;
use crate::storage::Storage;

/// How often the heart beats. A cancel made elsewhere is noticed at the next beat.
pub(super) const EVERY: Duration = Duration::from_millis(800);
/// How long a daemon counts as alive after a beat.
const LIFETIME: Duration = Duration::from_secs(15);

/// Beats once, and halts leases that are lost or whose batch is over.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    let before = context.held.ids();
    let held = context.storage.beat(context.id, LIFETIME).await?;
    context.held.halt_all_but(&before, &held);
    for stray in context.held.strays(&held, Instant::now()) {
        tracing::warn!(lease_id = %stray.id, "a lease that nobody runs is given back");
        context.storage.give_back(stray.id, stray.token).await?;
    }
    Ok(())
}

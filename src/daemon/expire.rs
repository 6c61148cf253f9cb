//! Closing windows: a batch that is still in progress at its deadline is finalized with what it has.

use std::sync::Arc;

use super::context::Context;
use super::duty::Turn;
use crate::storage::Storage;

const BATCHES: u32 = 100;

/// Moves the batches whose window has closed on to finalizing.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    let expired = context.storage.expire_batches(context.clock.now(), BATCHES).await?;
    if expired > 0 {
        tracing::info!(expired, "completion windows closed");
        context.wakeup.wake();
    }
    Ok(())
}

//! Giving back the space of what nobody can see any more: files that were deleted or have expired, and blobs that were
//! merged into others, and the steps of batches that ended long ago.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::context::Context;
use super::duty::Turn;
use crate::storage::Storage;

/// Files forgotten and blobs removed in one step.
const STEP: u32 = 100;
/// Steps in one turn; the rest waits for the next.
const STEPS: usize = 100;
const DELETES_AT_ONCE: usize = 8;

/// Goes on step by step until nothing is left whose time has come, or the turn is over.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    for _ in 0..STEPS {
        if context.stops.stopping.is_cancelled() {
            break;
        }
        let now = context.clock.now();
        let files = context.storage.retire_files(now, STEP).await?;
        let blobs = context.storage.retired_blobs(now, STEP).await?;
        let deletes = stream::iter(blobs.clone()).map(|blob| context.blobs.delete(blob));
        deletes.buffer_unordered(DELETES_AT_ONCE).try_collect::<()>().await?;
        // After they are gone: a crash between the two deletes them again, which does nothing.
        if !blobs.is_empty() {
            context.storage.forget_blobs(&blobs).await?;
        }
        let ended_before = now.minus(context.settings.steps_retention);
        let steps = context.storage.forget_steps(ended_before, STEP).await?;
        if files < STEP && blobs.len() < STEP as usize && steps == 0 {
            break;
        }
    }
    Ok(())
}

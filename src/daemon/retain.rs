//! Giving back the space of what nobody can see any more: files that were deleted or have expired, and blobs that were
//! merged into others, and the steps of batches that ended long ago.

use std::sync::Arc;

use super::context::Context;
use super::duty::Turn;
use super::items::Items;
use crate::domain::ids::BlobId;
use crate::storage::Storage;

/// Files forgotten and blobs removed in one step.
const STEP: u32 = 100;
/// Steps in one turn; the rest waits for the next.
const STEPS: usize = 100;
const DELETES_AT_ONCE: usize = 8;

/// Goes on step by step until nothing is left whose time has come, or the turn is over. What fails of one kind does not
/// keep the others from their turn.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>, items: Arc<Items<BlobId>>) -> Turn {
    let files = retire_files(&context).await;
    let blobs = remove_blobs(&context, &items).await;
    let steps = forget_steps(&context).await;
    files.and(blobs).and(steps)
}

async fn retire_files<S: Storage, H, P>(context: &Context<S, H, P>) -> Turn {
    for _ in 0..STEPS {
        let is_last = context.storage.retire_files(context.clock.now(), STEP).await? < STEP;
        if is_last || context.stops.stopping.is_cancelled() {
            break;
        }
    }
    Ok(())
}

async fn remove_blobs<S: Storage, H, P>(context: &Context<S, H, P>, items: &Items<BlobId>) -> Turn {
    let mut next = None;
    for _ in 0..STEPS {
        let page = context.storage.retired_blobs(context.clock.now(), next, STEP).await?;
        let delete = async |blob| -> Turn { Ok(context.blobs.delete(blob).await?) };
        let deleted = items.each(page.items, DELETES_AT_ONCE, |blob, ()| delete(blob)).await?;
        // After they are gone: a crash between the two deletes them again, which does nothing.
        if !deleted.is_empty() {
            context.storage.forget_blobs(&deleted).await?;
        }
        next = page.next;
        if next.is_none() || context.stops.stopping.is_cancelled() {
            break;
        }
    }
    Ok(())
}

async fn forget_steps<S: Storage, H, P>(context: &Context<S, H, P>) -> Turn {
    let ended_before = context.clock.now().minus(context.settings.steps_retention);
    for _ in 0..STEPS {
        let is_last = context.storage.forget_steps(ended_before, STEP).await? == 0;
        if is_last || context.stops.stopping.is_cancelled() {
            break;
        }
    }
    Ok(())
}

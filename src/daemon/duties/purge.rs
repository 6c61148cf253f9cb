//! Giving back the space of what nobody can see any more: files that were deleted or have expired, and blobs that were
//! merged into others, and the steps of batches that ended long ago.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;

use crate::daemon::items::Items;
use crate::daemon::shared::DaemonCore;
use crate::daemon::timer::TickResult;
use crate::domain::ids::BlobId;
use crate::storage::Storage;

const EVERY: Duration = Duration::from_secs(30);
/// Files forgotten and blobs removed in one step.
const STEP: u32 = 100;
/// Steps in one tick; the rest waits for the next.
const STEPS: usize = 100;
const DELETES_AT_ONCE: usize = 8;

/// Goes on step by step until nothing is left whose time has come, or the tick is over. What fails of one kind does not
/// keep the others from their turn.
pub(super) struct Purge<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) items: Items<BlobId>,
}

#[async_trait]
impl<S: Storage> Duty for Purge<S> {
    fn name(&self) -> &'static str {
        "purge"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_woken(&self) -> bool {
        false
    }

    async fn tick(&self) -> TickResult {
        let files = retire_files(&self.shared).await;
        let blobs = remove_blobs(&self.shared, &self.items).await;
        let steps = forget_steps(&self.shared).await;
        files.and(blobs).and(steps)
    }
}

async fn retire_files<S: Storage>(shared: &DaemonCore<S>) -> TickResult {
    for _ in 0..STEPS {
        let is_last = shared.storage.retire_files(shared.clock.now(), STEP).await? < STEP;
        if is_last || shared.shutdown.stopping.is_cancelled() {
            break;
        }
    }
    Ok(())
}

async fn remove_blobs<S: Storage>(shared: &DaemonCore<S>, items: &Items<BlobId>) -> TickResult {
    let mut next = None;
    for _ in 0..STEPS {
        let page = shared.storage.retired_blobs(shared.clock.now(), next, STEP).await?;
        let delete = async |blob| -> TickResult { Ok(shared.blobs.delete(blob).await?) };
        let deleted = items.each(page.items, DELETES_AT_ONCE, |blob, ()| delete(blob)).await?;
        // After they are gone: a crash between the two deletes them again, which does nothing.
        if !deleted.is_empty() {
            shared.storage.forget_blobs(&deleted).await?;
        }
        next = page.next;
        if next.is_none() || shared.shutdown.stopping.is_cancelled() {
            break;
        }
    }
    Ok(())
}

async fn forget_steps<S: Storage>(shared: &DaemonCore<S>) -> TickResult {
    let ended_before = shared.clock.now().minus(shared.settings.steps_retention);
    for _ in 0..STEPS {
        let is_last = shared.storage.forget_steps(ended_before, STEP).await? == 0;
        if is_last || shared.shutdown.stopping.is_cancelled() {
            break;
        }
    }
    Ok(())
}

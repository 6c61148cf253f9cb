//! Freeing the space of files that were deleted or have expired, of uploads that were not completed, of blobs that were
//! merged into others, of idempotency keys, of the steps and attempts of batches that ended long ago, and of
//! webhooks that were delivered long ago.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::timer::TickResult;
use crate::domain::ids::BlobId;
use crate::storage::{Result, Storage};

const EVERY: Duration = Duration::from_secs(30);
/// Files, uploads, blobs, or rows with steps or attempts, in one page.
const PAGE: u32 = 100;
/// Pages of each kind in one tick. More than that waits for the next tick.
const PAGES: usize = 100;
const DELETES_AT_ONCE: usize = 8;

/// Works through the pages of each kind. A failure with one kind does not keep the tick from the others.
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
        let DaemonCore { storage, clock, settings, .. } = &*self.shared;
        let (full, ended_before) = (u64::from(PAGE), clock.now().minus(settings.steps_retention));
        let files = self.pages(|| async { Ok(storage.retire_files(clock.now(), PAGE).await? < PAGE) }).await;
        let uploads = self.pages(|| async { Ok(storage.retire_uploads(clock.now(), PAGE).await? < PAGE) }).await;
        let blobs = remove_blobs(&self.shared, &self.items).await;
        let keys = self.pages(|| async { Ok(storage.forget_keys(clock.now(), PAGE).await? < full) }).await;
        let steps = self.pages(|| async { Ok(storage.forget_steps(ended_before, PAGE).await? == 0) }).await;
        let deliveries = self.pages(|| async { Ok(storage.forget_deliveries(clock.now(), PAGE).await? < full) }).await;
        files.and(uploads).and(blobs).and(keys).and(steps).and(deliveries)
    }
}

impl<S: Storage> Purge<S> {
    /// Works on one page after the other, until one says that it was the last.
    async fn pages<F>(&self, work: impl Fn() -> F) -> TickResult
    where
        F: Future<Output = Result<bool>>,
    {
        for _ in 0..PAGES {
            if work().await? || self.shared.shutdown.stopping.is_cancelled() {
                break;
            }
        }
        Ok(())
    }
}

async fn remove_blobs<S: Storage>(shared: &DaemonCore<S>, items: &Items<BlobId>) -> TickResult {
    let mut next = None;
    for _ in 0..PAGES {
        let page = shared.storage.retired_blobs(shared.clock.now(), next, PAGE).await?;
        let delete = async |blob| -> TickResult { Ok(shared.blobs.delete(blob).await?) };
        let deleted = items.each(page.items, DELETES_AT_ONCE, |blob, ()| delete(blob)).await?;
        // Forgotten after they were deleted: a crash between the two has them deleted again, which does nothing.
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

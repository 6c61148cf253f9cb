//! Removing orphans: blobs that were written and never referred to, because whoever wrote them died in between.
//!
//! One directory of the store after the other, so that a tick is short however much there is.
//!
//! A blob is written before the transaction that refers to it, at most minutes before. After a day there is no such
//! transaction under way: its leases have been taken over, its upload has been given up. A wall clock that steps makes a
//! blob look older than it is, so that only what was an orphan the last time around too is removed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;

use super::Duty;
use crate::daemon::items::Items;
use crate::daemon::shared::DaemonCore;
use crate::daemon::timer::TickResult;
use crate::domain::ids::BlobId;
use crate::storage::Storage;

/// Younger blobs may be about to be referred to.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// Blobs that the database is asked about at once.
const ASKED: usize = 100;

/// Where the sweep is. It begins anywhere, so that replicas and restarts do not all sweep the same.
struct SweepCursor {
    directory: AtomicU8,
    /// The orphans that were found in each directory the last time around.
    found: Mutex<HashMap<u8, HashSet<BlobId>>>,
}

impl SweepCursor {
    fn new() -> Self {
        Self { directory: AtomicU8::new(rand::random()), found: Mutex::default() }
    }

    /// Notes the orphans of a directory, and returns those that were orphans before.
    fn found_again(&self, directory: u8, orphans: HashSet<BlobId>) -> Vec<BlobId> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let again =
            found.get(&directory).map_or_else(Vec::new, |known| known.intersection(&orphans).copied().collect());
        found.insert(directory, orphans);
        again
    }
}

/// Looks through one directory after the other.
pub(super) struct Orphans<S> {
    shared: Arc<DaemonCore<S>>,
    items: Items<BlobId>,
    cursor: SweepCursor,
}

impl<S> Orphans<S> {
    pub(super) fn new(shared: Arc<DaemonCore<S>>, items: Items<BlobId>) -> Self {
        Self { shared, items, cursor: SweepCursor::new() }
    }
}

#[async_trait]
impl<S: Storage> Duty for Orphans<S> {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn every(&self) -> Duration {
        self.shared.settings.sweep_every
    }

    fn is_woken(&self) -> bool {
        false
    }

    async fn tick(&self) -> TickResult {
        let DaemonCore { storage, blobs, clock, shutdown, .. } = &*self.shared;
        // A second deployment may have taken the store over: it has files that this database does not know.
        let own = storage.blob_store_id(BlobId::new()).await?;
        if blobs.marks().await? != [own] {
            tracing::warn!("no orphans are removed: the blob store has not the mark of this deployment alone");
            return Ok(());
        }
        let directory = self.cursor.directory.fetch_add(1, Relaxed);
        let old = blobs.older_than(directory, clock.now().minus(OLD));
        let mut chunks = std::pin::pin!(old.try_chunks(ASKED));
        let mut orphans = HashSet::new();
        while let Some(chunk) = chunks.try_next().await.map_err(|error| error.1)? {
            orphans.extend(storage.orphans(&chunk).await?);
            if shutdown.stopping.is_cancelled() {
                return Ok(());
            }
        }
        remove(&self.shared, &self.items, self.cursor.found_again(directory, orphans)).await?;
        blobs.remove_unfinished(directory, OLD).await?;
        Ok(())
    }
}

async fn remove<S: Storage>(shared: &DaemonCore<S>, items: &Items<BlobId>, orphans: Vec<BlobId>) -> TickResult {
    let delete = async |blob| -> TickResult { Ok(shared.blobs.delete(blob).await?) };
    let removed = items.each(orphans.into_iter().map(|blob| (blob, Ok(()))), 1, |blob, ()| delete(blob)).await?;
    if !removed.is_empty() {
        tracing::info!(blobs = removed.len(), "orphaned blobs removed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_an_orphan_the_last_time_around_too_is_removed() {
        let cursor = SweepCursor::new();
        let [first, second] = [(); 2].map(|()| BlobId::new());

        assert_eq!(cursor.found_again(7, [first].into()), []);
        assert_eq!(cursor.found_again(8, [first].into()), [], "another directory");
        assert_eq!(cursor.found_again(7, [first, second].into()), [first]);
        assert_eq!(cursor.found_again(7, [second].into()), [second]);
        assert_eq!(cursor.found_again(7, HashSet::new()), []);
    }
}

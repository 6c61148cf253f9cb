//! Removing orphans: blobs that were written and that nothing in the database names, because their writer died in
//! between.
//!
//! Each tick looks through one directory of the store, so that it is short however many blobs there are.
//!
//! A blob is written before the transaction that refers to it, at most minutes before. After a day no such transaction
//! is under way: its leases have been taken over, its upload has been given up. A wall clock that steps may make a blob
//! look older than it is, so a blob is removed only if it was an orphan the last time around too.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::timer::TickResult;
use crate::domain::ids::BlobId;
use crate::storage::Storage;
use crate::sync::lock;

/// The transaction that names a younger blob may still be under way.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// Blobs that one query asks about.
const ASKED: usize = 100;

/// The next directory to look through. It begins at a random one, so that replicas and restarts look through others.
struct SweepCursor {
    directory: AtomicU8,
    /// The orphans of each directory the last time around.
    found: Mutex<HashMap<u8, HashSet<BlobId>>>,
}

impl SweepCursor {
    fn new() -> Self {
        Self { directory: AtomicU8::new(rand::random()), found: Mutex::default() }
    }

    /// Notes the orphans of a directory, and returns those that were orphans before.
    fn found_again(&self, directory: u8, orphans: HashSet<BlobId>) -> Vec<BlobId> {
        let mut found = lock(&self.found);
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
        // A second deployment may have taken the store over. This database does not know the files of that one.
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

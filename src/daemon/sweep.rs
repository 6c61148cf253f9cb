//! Removing orphans: blobs that were written and never referred to, because whoever wrote them died in between.
//!
//! One directory of the store after the other, so that a turn is short however much there is.
//!
//! A blob is written before the transaction that refers to it, at most minutes before. After a day there is no such
//! transaction under way: its leases have been taken over, its upload has been given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use futures::TryStreamExt as _;

use super::context::Context;
use super::duty::Turn;
use crate::domain::ids::BlobId;
use crate::storage::Storage;

/// Younger blobs may be about to be referred to.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// Blobs that the database is asked about at once.
const ASKED: usize = 100;

/// Where the sweep is. It begins anywhere, so that replicas and restarts do not all sweep the same.
pub(super) struct Broom(AtomicU8);

impl Broom {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(rand::random()))
    }
}

/// Sweeps one directory.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    // A second deployment may have taken the store over: it has files that this database does not know.
    let own = context.storage.blob_store_id(BlobId::new()).await?;
    if context.blobs.marks().await? != [own] {
        tracing::warn!("nothing is swept: the blob store has not the mark of this deployment alone");
        return Ok(());
    }
    let directory = context.broom.0.fetch_add(1, Relaxed);
    let before = context.clock.now().minus(OLD);
    let old = context.blobs.older_than(directory, before);
    let mut chunks = std::pin::pin!(old.try_chunks(ASKED));
    while let Some(blobs) = chunks.try_next().await.map_err(|error| error.1)? {
        remove_orphans(&context, &blobs).await?;
        if context.stops.stopping.is_cancelled() {
            return Ok(());
        }
    }
    context.blobs.remove_unfinished(directory, OLD).await?;
    Ok(())
}

async fn remove_orphans<S: Storage, H, P>(context: &Context<S, H, P>, blobs: &[BlobId]) -> Turn {
    let orphans = context.storage.orphans(blobs).await?;
    for orphan in &orphans {
        context.blobs.delete(*orphan).await?;
    }
    if !orphans.is_empty() {
        tracing::info!(blobs = orphans.len(), "orphaned blobs removed");
    }
    Ok(())
}

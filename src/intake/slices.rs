//! Indexes an upload while it arrives, slice by slice on a blocking thread. No thread is held while the upload waits
//! for bytes.

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{Found, Indexer, UploadRefusal};
use crate::domain::report::IntakeLimits;

/// Bytes of a slice. At most two slices are held: one that grows, and one that is being indexed.
const SLICE: usize = 1 << 20;
/// The overhead of a chunk in bytes, so that slices of tiny chunks are bounded too.
const CHUNK: usize = 128;

/// An indexer that takes chunks.
pub(super) struct Slices {
    indexer: IndexerState,
    chunks: Vec<Bytes>,
    weight: usize,
}

/// The indexer, or the task that has it.
enum IndexerState {
    Idle(Box<Indexer>),
    Reading(JoinHandle<Box<Indexer>>),
    /// Between two slices, and after an upload that was aborted there.
    Taken,
}

impl Slices {
    pub(super) fn new(limits: &IntakeLimits) -> Self {
        Self { indexer: IndexerState::Idle(Box::new(Indexer::new(limits))), chunks: Vec::new(), weight: 0 }
    }

    /// Adds the next chunk. Waits while the previous slice is still being indexed.
    pub(super) async fn push(&mut self, chunk: Bytes) {
        self.weight += chunk.len() + CHUNK;
        self.chunks.push(chunk);
        if self.weight >= SLICE {
            self.read_slice().await;
        }
    }

    /// Reads the end of the file.
    pub(super) async fn finish(mut self) -> Result<Found, UploadRefusal> {
        self.read_slice().await;
        let indexer = self.idle().await;
        let finished = tokio::task::spawn_blocking(move || indexer.finish()).await;
        finished.expect("the indexer does not panic, whatever the bytes")
    }

    async fn read_slice(&mut self) {
        let mut indexer = self.idle().await;
        let chunks = std::mem::take(&mut self.chunks);
        self.weight = 0;
        self.indexer = IndexerState::Reading(tokio::task::spawn_blocking(move || {
            for chunk in chunks {
                indexer.push(&chunk);
            }
            indexer
        }));
    }

    async fn idle(&mut self) -> Box<Indexer> {
        match std::mem::replace(&mut self.indexer, IndexerState::Taken) {
            IndexerState::Idle(indexer) => indexer,
            IndexerState::Reading(reading) => reading.await.expect("the indexer does not panic, whatever the bytes"),
            IndexerState::Taken => unreachable!("an upload that was given up is not gone on with"),
        }
    }
}

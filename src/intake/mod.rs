//! Bytes in; blob, row index and report out, in one pass.
//!
//! The stream is written to the blob store and read line by line at the same time, on a thread of its own. Nothing
//! is known of the purpose while the bytes come: multipart fields have no order, so what was found is judged after.

mod indexer;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

pub use indexer::{Found, Indexer, Refusal};

use crate::domain::file::FilePart;
use crate::storage::blobs::{BlobError, Blobs};

/// Chunks on their way to the indexing thread: what bounds its lead over the disk.
const CHUNKS_AHEAD: usize = 8;

/// What an upload must keep to, by configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeLimits {
    /// The largest file, in bytes.
    pub max_file_bytes: u64,
    /// The longest line, in bytes; longer ones are refused without being held.
    pub max_line_bytes: usize,
    /// The most rows that are indexed; what comes after is counted only, as no batch can have so many.
    pub max_rows: u64,
}

/// An upload that was taken in. Its blob is durable and nothing refers to it yet.
#[derive(Debug)]
pub struct Taken {
    /// The bytes.
    pub part: FilePart,
    /// What was found in them, read as a batch input file. `None` if nobody asked.
    pub found: Option<Result<Found, Refusal>>,
}

/// Why an upload was not taken in. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError<E> {
    /// The client's stream broke off or is malformed.
    #[error("the upload broke off")]
    Stream(E),
    /// More bytes than a file may have.
    #[error("the upload is larger than a file may be")]
    TooLarge,
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Takes an upload in. With `inspect` it is read as a batch input file on the way.
pub async fn take_in<E>(
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
    blobs: &Blobs,
    limits: &IntakeLimits,
    inspect: bool,
) -> Result<Taken, IntakeError<E>> {
    let mut writer = blobs.writer().await?;
    let (chunks, indexer) = if inspect { start_indexer(limits) } else { (None, None) };
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(IntakeError::Stream)?;
        if writer.written() + chunk.len() as u64 > limits.max_file_bytes {
            return Err(IntakeError::TooLarge);
        }
        if let Some(chunks) = &chunks {
            // The indexer takes every chunk until the sender is dropped.
            let _ = chunks.send(chunk.clone()).await;
        }
        writer.write(chunk).await?;
    }
    drop(chunks);
    let size = writer.written();
    let blob = writer.finish().await?;
    let found = match indexer {
        Some(indexer) => Some(indexer.await.expect("the indexer does not panic, whatever the bytes")),
        None => None,
    };
    Ok(Taken { part: FilePart { blob, bytes: size }, found })
}

type IndexerTask = tokio::task::JoinHandle<Result<Found, Refusal>>;

fn start_indexer(limits: &IntakeLimits) -> (Option<mpsc::Sender<Bytes>>, Option<IndexerTask>) {
    let (chunks, mut arriving) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
    let mut indexer = Indexer::new(limits);
    let task = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = arriving.blocking_recv() {
            indexer.push(&chunk);
        }
        indexer.finish()
    });
    (Some(chunks), Some(task))
}

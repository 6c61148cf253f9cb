//! Turns an upload into a blob, a row index and a report, in one pass.
//!
//! The stream is written to the blob store and read line by line at the same time. The purpose of the file may not be
//! known yet, because multipart fields have no order, so the caller judges the result afterwards.

mod indexer;
mod packed;
mod prompt_order;
mod slices;

use bytes::Bytes;
use futures::future::OptionFuture;
use futures::{Stream, StreamExt as _};

use slices::Slices;

pub use indexer::{Found, Indexer, UploadRefusal};
pub use packed::{Packing, UnpackError, recognised, unpacked};

use crate::domain::file::FilePart;
use crate::domain::report::IntakeLimits;
use crate::storage::blobs::{BlobError, Blobs};

/// A stored upload. Its blob is durable, and nothing refers to the blob yet.
#[derive(Debug)]
pub struct Taken {
    /// The bytes.
    pub part: FilePart,
    /// The result of reading them as a batch input file; `None` if they were not read as one.
    pub found: Option<Result<Found, UploadRefusal>>,
}

/// Why an upload was not stored. Nothing of it is left behind.
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

/// Reads bytes that are stored already as a batch input file.
pub async fn inspect_stored<E>(
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
    limits: &IntakeLimits,
) -> Result<Result<Found, UploadRefusal>, E> {
    let mut slices = Slices::new(limits);
    while let Some(chunk) = bytes.next().await {
        slices.push(chunk?).await;
    }
    Ok(slices.finish().await)
}

/// Stores an upload. With `inspect`, it is read as a batch input file at the same time.
pub async fn take_in<E>(
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
    blobs: &Blobs,
    limits: &IntakeLimits,
    inspect: bool,
) -> Result<Taken, IntakeError<E>> {
    let mut writer = blobs.writer().await?;
    let mut slices = inspect.then(|| Slices::new(limits));
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(IntakeError::Stream)?;
        if writer.written() + chunk.len() as u64 > limits.max_file_bytes {
            return Err(IntakeError::TooLarge);
        }
        if let Some(slices) = &mut slices {
            slices.push(chunk.clone()).await;
        }
        writer.write(chunk).await?;
    }
    let size = writer.written();
    let found = OptionFuture::from(slices.map(Slices::finish));
    // The last slice is indexed while the disk syncs.
    let (blob, found) = futures::join!(writer.finish(), found);
    Ok(Taken { part: FilePart { blob: blob?, bytes: size }, found })
}

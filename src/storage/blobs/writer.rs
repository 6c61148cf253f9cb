//! Writing a blob whose size is not known yet, in pieces that go out side by side.

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayloadMut};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::BlobError;
use crate::domain::ids::BlobId;

/// The least that object stores take as a piece.
pub(super) const FAR_PIECE: usize = 5 << 20;
/// A piece for a local directory, which takes any: what an upload that has stopped holds.
pub(super) const PIECE: usize = 1 << 20;
/// Bytes that come in fewer than this are copied together: each chunk that is kept as it is costs more than a few
/// bytes.
const SMALL: usize = 4 << 10;
/// How many pieces are on their way at once: what bounds the memory of one upload.
const IN_FLIGHT: usize = 2;

/// A blob being written. Dropping it before [`BlobWriter::finish`] leaves nothing behind.
pub struct BlobWriter {
    id: BlobId,
    upload: Option<Box<dyn MultipartUpload>>,
    piece: PutPayloadMut,
    piece_bytes: usize,
    written: u64,
    in_flight: JoinSet<object_store::Result<()>>,
    removals: TaskTracker,
}

impl BlobWriter {
    pub(super) fn new(id: BlobId, upload: Box<dyn MultipartUpload>, piece_bytes: usize, removals: TaskTracker) -> Self {
        let piece = PutPayloadMut::new().with_block_size(64 << 10);
        Self { id, upload: Some(upload), piece, piece_bytes, written: 0, in_flight: JoinSet::new(), removals }
    }

    /// Appends bytes. Waits while enough of what came before is on its way.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        self.written += bytes.len() as u64;
        if bytes.len() < SMALL {
            self.piece.extend_from_slice(&bytes);
        } else {
            self.piece.push(bytes);
        }
        if self.piece.content_length() >= self.piece_bytes {
            self.send_piece().await?;
        }
        Ok(())
    }

    /// How many bytes were appended.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Closes the blob. It is durable when this returns.
    pub async fn finish(mut self) -> Result<BlobId, BlobError> {
        if self.piece.content_length() > 0 || self.written == 0 {
            self.send_piece().await?;
        }
        while let Some(sent) = self.in_flight.join_next().await {
            sent.expect("a piece is sent without panic")?;
        }
        fail::fail_point!("blob.put", |what| Err(super::fault(what)));
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        self.upload = None;
        fail::fail_point!("blob.written", |what| Err(super::fault(what)));
        Ok(self.id)
    }

    async fn send_piece(&mut self) -> Result<(), BlobError> {
        while self.in_flight.len() >= IN_FLIGHT {
            if let Some(sent) = self.in_flight.join_next().await {
                sent.expect("a piece is sent without panic")?;
            }
        }
        let piece = std::mem::take(&mut self.piece).freeze();
        if let Some(upload) = &mut self.upload {
            self.in_flight.spawn(upload.put_part(piece));
        }
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        let mut in_flight = std::mem::take(&mut self.in_flight);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Cannot fail to be noticed: what an aborted upload leaves in a store is swept like any orphan.
        let removal = async move {
            in_flight.shutdown().await;
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "an unfinished blob could not be removed");
            }
        };
        self.removals.spawn_on(removal, &runtime);
    }
}

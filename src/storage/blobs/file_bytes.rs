//! The bytes of a file: its parts, end to end.

use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{BlobError, Blobs};
use crate::domain::file::FilePart;
use crate::storage::{ReadError, StorageError};
use crate::telemetry::chain;

/// How much one read of a stream asks for, and how many are under way: downloads are bound by these, not by the file.
const READ: u64 = 128 << 10;
const READS_AHEAD: usize = 2;
/// Of a local store: as many bytes in half as many reads, because the read itself costs more there than the wait for
/// it.
const NEAR_READ: u64 = 256 << 10;
const NEAR_READS_AHEAD: usize = 1;
/// How much the reads of a stream grow to while its bytes are taken: 1 MiB is read 1.4 times as fast as 256 KiB from a
/// local directory, and across a network a round trip costs more than the bytes.
const LARGEST_NEAR_READ: u64 = 1 << 20;
const LARGEST_READ: u64 = 4 << 20;
/// What all larger reads may hold together, so that readers who stop cost no more than small reads.
pub(super) const LARGER_READS: usize = 64 << 20;

/// A file that can be read at any place.
#[derive(Debug, Clone)]
pub struct FileBytes {
    parts: Vec<FilePart>,
}

/// A range of one blob.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    part: FilePart,
    range: Range<u64>,
}

impl FileBytes {
    /// The file made of these parts, in order.
    #[must_use]
    pub fn new(parts: Vec<FilePart>) -> Self {
        Self { parts }
    }

    /// How long the file is, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a range whole. A range within one part is not copied.
    pub async fn read(&self, blobs: &Blobs, range: Range<u64>) -> Result<Bytes, BlobError> {
        let pieces = self.pieces(range);
        if let [piece] = &pieces[..] {
            return blobs.read(piece.part.blob, piece.range.clone()).await;
        }
        let mut whole = BytesMut::new();
        for piece in pieces {
            whole.extend_from_slice(&blobs.read(piece.part.blob, piece.range).await?);
        }
        Ok(whole.freeze())
    }

    /// Reads a range bit by bit, in order, a little ahead of whoever takes it.
    pub fn stream(&self, blobs: &Blobs, range: Range<u64>) -> impl Stream<Item = Result<Bytes, BlobError>> + use<> {
        let blobs = blobs.clone();
        let (least, most, ahead) = if blobs.is_local() {
            (NEAR_READ, LARGEST_NEAR_READ, NEAR_READS_AHEAD)
        } else {
            (READ, LARGEST_READ, READS_AHEAD)
        };
        let reads = Reads { pieces: self.pieces(range), least, most };
        let larger = blobs.larger_reads.clone();
        stream::iter(reads.sized(larger))
            .map(move |(piece, permit)| {
                let read = piece.read(blobs.clone());
                async move { Ok((read.await?, permit)) }
            })
            .buffered(ahead)
            // A read counts until the next one is asked for: until then its bytes wait for the client.
            .scan(None, |held, read| {
                let read = read.map(|(bytes, permit)| {
                    *held = permit;
                    bytes
                });
                ready(Some(read))
            })
    }

    /// The same, also if that takes longer than replaced blobs are kept: when one is gone, `parts_now` tells what the
    /// parts have been merged into, and the stream goes on at the same byte.
    pub fn stream_while_merged<F, Fut>(
        &self,
        blobs: &Blobs,
        range: Range<u64>,
        parts_now: F,
    ) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<F, Fut>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<Vec<FilePart>, StorageError>> + Send,
    {
        let pieces = self.stream(blobs, range.clone()).boxed();
        let state = (pieces, range, blobs.clone(), parts_now);
        stream::try_unfold(state, |(mut pieces, mut range, blobs, parts_now)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let mut next = pieces.try_next().await;
            if next.as_ref().is_err_and(BlobError::is_gone) {
                pieces = Self::new(parts_now().await?).stream(&blobs, range.clone()).boxed();
                next = pieces.try_next().await;
            }
            Ok(next?.map(|piece| {
                range.start += piece.len() as u64;
                (piece, (pieces, range, blobs, parts_now))
            }))
        })
    }

    fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut part_start = 0;
        for &part in &self.parts {
            let part_end = part_start + part.bytes;
            let from = range.start.clamp(part_start, part_end);
            let to = range.end.clamp(part_start, part_end);
            if from < to {
                pieces.push(Piece { part, range: from - part_start..to - part_start });
            }
            part_start = part_end;
        }
        pieces
    }
}

impl Piece {
    async fn read(self, blobs: Blobs) -> Result<Bytes, BlobError> {
        let read = blobs.read(self.part.blob, self.range).await;
        // One that is gone has its name in the error, and may only have been merged into another.
        if let Some(error) = read.as_ref().err().filter(|error| !error.is_gone()) {
            tracing::warn!(blob_id = %self.part.blob, error = chain(error), "a blob cannot be read");
        }
        read
    }
}

/// The pieces of a range that are still to be read.
struct Reads {
    pieces: Vec<Piece>,
    least: u64,
    most: u64,
}

impl Reads {
    /// One read after the other. Each is made when an earlier one was taken, which shows that somebody reads, and is
    /// twice as large as the one before if there is room for that.
    fn sized(self, larger: Arc<Semaphore>) -> impl Iterator<Item = (Piece, Option<OwnedSemaphorePermit>)> {
        let Self { pieces, least, most } = self;
        let mut size = least;
        let mut pieces = pieces.into_iter();
        let mut rest: Option<Piece> = None;
        std::iter::from_fn(move || {
            let Piece { part, range } = rest.take().or_else(|| pieces.next())?;
            let permits = u32::try_from(size).expect("a few MiB");
            let permit = (size > least).then(|| larger.clone().try_acquire_many_owned(permits).ok()).flatten();
            let length = if permit.is_some() { size } else { least };
            let end = range.end.min(range.start + length);
            if end < range.end {
                rest = Some(Piece { part, range: end..range.end });
            }
            size = (size * 2).min(most);
            Some((Piece { part, range: range.start..end }, permit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BlobId;

    fn file(parts: &[u64]) -> FileBytes {
        FileBytes::new(parts.iter().map(|&bytes| FilePart { blob: BlobId::new(), bytes }).collect())
    }

    fn reads(pieces: Vec<Piece>, most: u64, larger: usize) -> Vec<Range<u64>> {
        let reads = Reads { pieces, least: READ, most }.sized(Arc::new(Semaphore::new(larger)));
        reads.map(|(piece, _)| piece.range).collect()
    }

    #[test]
    fn a_range_is_cut_where_parts_end() {
        let file = file(&[10, 0, 5]);
        let [a, _, c] = file.parts[..] else { unreachable!("three parts") };

        assert_eq!(file.len(), 15);
        assert_eq!(file.pieces(2..3), [Piece { part: a, range: 2..3 }]);
        assert_eq!(file.pieces(8..99), [Piece { part: a, range: 8..10 }, Piece { part: c, range: 0..5 }]);
        assert!(file.pieces(15..20).is_empty());
    }

    #[test]
    fn reads_end_where_parts_end() {
        let pieces = file(&[2 * READ + 1, 3]).pieces(0..u64::MAX);

        assert_eq!(reads(pieces, READ, LARGER_READS), [0..READ, READ..2 * READ, 2 * READ..2 * READ + 1, 0..3]);
    }

    #[test]
    fn reads_grow_as_far_as_there_is_room() {
        let pieces = || file(&[8 * READ]).pieces(0..u64::MAX);

        assert_eq!(
            reads(pieces(), 4 * READ, LARGER_READS),
            [0..READ, READ..3 * READ, 3 * READ..7 * READ, 7 * READ..8 * READ]
        );
        assert_eq!(reads(pieces(), 4 * READ, 0).len(), 8);
    }
}

//! The bytes of a file: its parts, end to end.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::{BlobError, Blobs};
use crate::domain::file::FilePart;

/// How much one read of a stream asks for, and how many are under way: downloads are bound by these, not by the file.
const READ: u64 = 4 << 20;
const READS_AHEAD: usize = 2;

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
        let pieces = self.pieces(range, u64::MAX);
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
        stream::iter(self.pieces(range, READ))
            .map(move |piece| {
                let blobs = blobs.clone();
                async move { blobs.read(piece.part.blob, piece.range).await }
            })
            .buffered(READS_AHEAD)
            .into_stream()
    }

    fn pieces(&self, range: Range<u64>, at_most: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut part_start = 0;
        for &part in &self.parts {
            let part_end = part_start + part.bytes;
            let mut from = range.start.clamp(part_start, part_end);
            let to = range.end.clamp(part_start, part_end);
            while from < to {
                let end = to.min(from.saturating_add(at_most));
                pieces.push(Piece { part, range: from - part_start..end - part_start });
                from = end;
            }
            part_start = part_end;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BlobId;

    #[test]
    fn a_range_is_cut_where_parts_and_reads_end() {
        let part = |bytes| FilePart { blob: BlobId::new(), bytes };
        let (a, b, c) = (part(10), part(0), part(5));
        let file = FileBytes::new(vec![a, b, c]);

        assert_eq!(file.len(), 15);
        assert_eq!(file.pieces(2..3, 100), [Piece { part: a, range: 2..3 }]);
        assert_eq!(
            file.pieces(8..99, 4),
            [Piece { part: a, range: 8..10 }, Piece { part: c, range: 0..4 }, Piece { part: c, range: 4..5 }]
        );
        assert!(file.pieces(15..20, 4).is_empty());
    }
}

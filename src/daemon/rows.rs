//! Reading rows of a batch's input file through its row index.

use std::ops::Range;

use bytes::Bytes;

use crate::domain::index::IndexEntry;
use crate::storage::BatchInput;
use crate::storage::blobs::{BlobError, Blobs, FileBytes};

/// How much is read at once. Small: one slow row keeps the memory of its whole read.
pub(super) const READ_BYTES: u64 = 128 << 10;

/// The rows of one batch's input file.
#[derive(Clone)]
pub(super) struct RowReader {
    blobs: Blobs,
    input: BatchInput,
    file: FileBytes,
}

impl RowReader {
    pub(super) fn new(blobs: Blobs, input: BatchInput) -> Self {
        let file = FileBytes::new(input.parts.clone());
        Self { blobs, input, file }
    }

    pub(super) fn input(&self) -> &BatchInput {
        &self.input
    }

    /// The entries at these positions of the row index.
    pub(super) async fn entries(&self, positions: Range<u32>) -> Result<Vec<IndexEntry>, BlobError> {
        let bytes = self.blobs.read(self.input.index, IndexEntry::span(positions)).await?;
        Ok(IndexEntry::decode(&bytes).collect())
    }

    /// The lines of a run of neighbours, read together.
    pub(super) async fn lines(&self, run: &[IndexEntry]) -> Result<Vec<(u32, Bytes)>, BlobError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Vec::new()) };
        let bytes = self.file.read(&self.blobs, first.offset..last.end()).await?;
        let cut = |entry: &IndexEntry| {
            let start = usize::try_from(entry.offset - first.offset).expect("within what was read");
            (entry.row, bytes.slice(start..start + entry.length as usize))
        };
        Ok(run.iter().map(cut).collect())
    }
}

//! Rows that came with their request, as lines of an input file.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use crate::domain::file::FilePart;
use crate::domain::sparse_row::RowDefaults;
use crate::domain::splitter::{Line, LineSplitter};
use crate::storage::blobs::{BlobError, Blobs, FileBytes};

/// The rows of a spooled body, one a line, with what `defaults` give to them for the members that they leave out.
pub fn complete_rows(
    spooled: FilePart,
    blobs: &Blobs,
    defaults: RowDefaults,
) -> impl Stream<Item = Result<Bytes, BlobError>> + use<> {
    let spooled = FileBytes::new(vec![spooled]);
    let mut splitter = Some(LineSplitter::new(usize::MAX));
    let pieces = spooled.stream(blobs, 0..spooled.len()).map_ok(Some).chain(stream::iter([Ok(None)]));
    pieces.map_ok(move |piece| completed(&mut splitter, piece, &defaults))
}

/// The rows that end in the next piece; `None` is the end.
fn completed(splitter: &mut Option<LineSplitter>, piece: Option<Bytes>, defaults: &RowDefaults) -> Bytes {
    let mut rows = Vec::new();
    let mut each = |line: Line<'_>| {
        // What follows the last line end is no row.
        if let Line::Whole { bytes, number, .. } = line
            && !bytes.is_empty()
        {
            rows.extend_from_slice(&defaults.complete(bytes, number));
            rows.push(b'\n');
        }
    };
    match (piece, splitter.as_mut()) {
        (Some(piece), Some(splitter)) => splitter.push(&piece, &mut each),
        _ => {
            if let Some(splitter) = splitter.take() {
                splitter.finish(&mut each);
            }
        }
    }
    rows.into()
}

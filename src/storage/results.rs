//! Reading the result lines of single rows, from the moment they are recorded.

use std::pin::pin;

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::blobs::{BlobError, Blobs, FileBytes};
use super::{ReadError, Storage};
use crate::domain::file::FilePart;
use crate::domain::ids::RequestId;
use crate::domain::line;
use crate::domain::owner::Owner;
use crate::domain::splitter::{Line, LineSplitter};
use crate::domain::time::Timestamp;

/// The result line of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultLine {
    /// The line as a client downloads it, without its line end.
    pub text: Bytes,
    /// Whether it is in the output file: the row succeeded.
    pub succeeded: bool,
}

/// The result line of a row in a batch of an owner. `None` if it has none yet, or if the file that has it was deleted
/// or has expired.
pub async fn result_line(
    storage: &dyn Storage,
    blobs: &Blobs,
    owner: &Owner,
    id: RequestId,
    now: Timestamp,
) -> Result<Option<ResultLine>, ReadError> {
    let Some(recorded) = storage.part_of_row(owner, id, now).await? else { return Ok(None) };
    let text = line_of(blobs, recorded.part, id).await?;
    Ok(text.map(|text| ResultLine { text, succeeded: recorded.succeeded }))
}

/// The line of a row in the part that has it. Holds no more of the part than a piece or two, and the longest line.
async fn line_of(blobs: &Blobs, part: FilePart, id: RequestId) -> Result<Option<Bytes>, BlobError> {
    let start = line::start_of(id);
    let mut found = None;
    let mut splitter = LineSplitter::new(usize::MAX);
    let mut pieces = pin!(FileBytes::new(vec![part]).stream(blobs, 0..part.bytes));
    while let Some(piece) = pieces.try_next().await? {
        splitter.push(&piece, |line| {
            if let Line::Whole { bytes, .. } = line
                && bytes.starts_with(start.as_bytes())
            {
                found = Some(Bytes::copy_from_slice(bytes));
            }
        });
        if found.is_some() {
            break;
        }
    }
    Ok(found)
}

//! Which rows of a batch that has ended failed or never ran: those with a line in its error file.

use std::pin::pin;

use futures::TryStreamExt as _;
use roaring::RoaringBitmap;

use super::{ResultFile, ResultFiles};
use crate::domain::result::RecordedFailure;
use crate::domain::splitter::{Line, LineSplitter};
use crate::storage::ReadError;

impl ResultFiles {
    /// The rows in the error file whose failure has one of the codes; all of them if there are no codes.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn failed_rows(&self, codes: &[String]) -> Result<RoaringBitmap, ReadError> {
        let mut rows = RoaringBitmap::new();
        let mut splitter = LineSplitter::new(usize::MAX);
        let mut pieces = pin!(self.stream(ResultFile::Errors, 0..self.errors.len()));
        while let Some(piece) = pieces.try_next().await? {
            splitter.push(&piece, |line| rows.extend(failed_row(&line, codes)));
        }
        Ok(rows)
    }
}

/// The row of a line, if its failure has one of the codes.
fn failed_row(line: &Line<'_>, codes: &[String]) -> Option<u32> {
    let Line::Whole { bytes, .. } = line else { return None };
    RecordedFailure::read(bytes).filter(|failure| failure.is_one_of(codes)).map(|failure| failure.row)
}

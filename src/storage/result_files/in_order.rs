//! The lines of both result files in the order of the input file, for a batch that has ended.
//!
//! One pass over the files notes where the line of each row is: the id in a line ends with the number of its row. The
//! lines are then read a window of rows at a time, neighbours together.

use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use memchr::memchr;

use super::{ResultFile, ResultFiles};
use crate::domain::ids::row_of_line_id;
use crate::domain::index::{self, IndexEntry};
use crate::domain::result_cursor::ResultKind;
use crate::storage::ReadError;
use crate::storage::blobs::BlobError;
use crate::storage::rows::{READ_BYTES, READS_AT_ONCE, read_run};

/// The bytes and rows of a window. A longer line is a window of its own, and is not held whole.
const WINDOW_BYTES: u64 = 1 << 20;
const WINDOW_ROWS: usize = 4096;

/// How a line begins: `{"id":"`, and the 42 characters of its id.
const ID_AT: Range<usize> = 7..49;

/// Where the line of each row is.
pub struct InputOrder {
    /// Those of each batch that has lines here.
    files: Vec<ResultFiles>,
    /// By row number; a row without a line has one of no bytes.
    places: Vec<LinePlace>,
}

#[derive(Clone, Copy)]
struct LinePlace {
    offset: u64,
    /// With the line end.
    length: u32,
    file: ResultFile,
    /// The position of the batch in `files`.
    batch: u16,
}

impl ResultFiles {
    /// Looks at all lines of a kind. A batch has `rows` rows.
    ///
    /// # Errors
    /// The files cannot be read.
    pub async fn in_order(self, rows: u64, kind: ResultKind) -> Result<InputOrder, ReadError> {
        let nowhere = LinePlace { offset: 0, length: 0, file: ResultFile::Output, batch: 0 };
        let mut places = vec![nowhere; usize::try_from(rows).expect("rows have numbers of 32 bits")];
        if kind.has_output() {
            self.find_lines(ResultFile::Output, &mut places).await?;
        }
        if kind.has_errors() {
            self.find_lines(ResultFile::Errors, &mut places).await?;
        }
        Ok(InputOrder { files: vec![self], places })
    }

    async fn find_lines(&self, file: ResultFile, places: &mut [LinePlace]) -> Result<(), ReadError> {
        let mut scan = LineScan::default();
        let mut note = |row: u32, offset, length| {
            if let Some(place) = places.get_mut(row as usize) {
                *place = LinePlace { offset, length, file, batch: 0 };
            }
        };
        let mut pieces = pin!(self.stream(file, 0..self.file(file).len()));
        while let Some(piece) = pieces.try_next().await? {
            scan.push(&piece, &mut note);
        }
        Ok(())
    }
}

impl InputOrder {
    /// Puts the lines of a batch that ran rows again in the place of those that are here. `rows` has the number here of
    /// each of its rows.
    ///
    /// # Panics
    /// If these are the lines of more than 65,535 batches.
    pub fn replace(&mut self, newer: Self, rows: &[u32]) {
        let batches = u16::try_from(self.files.len()).expect("few");
        for (place, row) in newer.places.into_iter().zip(rows) {
            if let Some(old) = self.places.get_mut(*row as usize).filter(|_| place.length > 0) {
                *old = LinePlace { batch: place.batch + batches, ..place };
            }
        }
        self.files.extend(newer.files);
    }

    /// How many bytes the lines have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.length)).sum()
    }

    /// The lines.
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
        let windows = stream::try_unfold((self, 0), |(mut order, first)| async move {
            let window = order.window(first);
            if window.is_empty() {
                return Ok::<_, ReadError>(None);
            }
            let lines = order.read(window.clone()).await?;
            Ok(Some((lines, (order, window.end))))
        });
        windows.try_flatten()
    }

    /// The rows to read next.
    fn window(&self, first: usize) -> Range<usize> {
        let rest = self.places[first..].iter().take(WINDOW_ROWS);
        let ends = rest.scan(0, |bytes, place| {
            *bytes += u64::from(place.length);
            Some(*bytes)
        });
        let rows = ends.take_while(|bytes| *bytes <= WINDOW_BYTES).count();
        first..self.places.len().min(first + rows.max(1))
    }

    async fn read(
        &mut self,
        rows: Range<usize>,
    ) -> Result<impl Stream<Item = Result<Bytes, ReadError>> + Send + use<>, ReadError> {
        if let &[place] = &self.places[rows.clone()] {
            let range = place.offset..place.offset + u64::from(place.length);
            return Ok(self.files[usize::from(place.batch)].stream(place.file, range).boxed());
        }
        let mut lines = self.lines_of(rows.clone()).await;
        if lines.as_ref().is_err_and(BlobError::is_gone) {
            // This has taken longer than replaced blobs are kept, or a file was deleted.
            if self.look_again().await? {
                lines = self.lines_of(rows).await;
            }
        }
        Ok(stream::iter([lines.map_err(ReadError::from)]).boxed())
    }

    /// Finds where the files are now. False if one of them is gone.
    async fn look_again(&mut self) -> Result<bool, ReadError> {
        for files in &mut self.files {
            let now = files.source.files().await?;
            if now.lengths() != files.lengths() {
                return Ok(false);
            }
            *files = now;
        }
        Ok(true)
    }

    /// The lines of a window, end to end.
    async fn lines_of(&self, rows: Range<usize>) -> Result<Bytes, BlobError> {
        let places = &self.places[rows];
        let mut lines = vec![Bytes::new(); places.len()];
        let both = |files| [(files, ResultFile::Output), (files, ResultFile::Errors)];
        for ((batch, files), file) in (0..).zip(&self.files).flat_map(both) {
            let entries = entries_of(places, batch, file);
            let bytes = files.file(file);
            let runs = stream::iter(index::neighbours(&entries, READ_BYTES));
            let blobs = &files.source.blobs;
            let reads = runs.map(|run| read_run(blobs, bytes, &entries[run])).buffered(READS_AT_ONCE);
            for (no, line) in reads.try_concat().await? {
                lines[no as usize] = line;
            }
        }
        Ok(lines.concat().into())
    }
}

/// The lines of a window that are in one file, in the order of the file. Their row numbers count within the window.
fn entries_of(places: &[LinePlace], batch: u16, file: ResultFile) -> Vec<IndexEntry> {
    let mut entries: Vec<IndexEntry> = (0..)
        .zip(places)
        .filter(|(_, place)| place.batch == batch && place.file == file && place.length > 0)
        .map(|(row, place)| IndexEntry { offset: place.offset, length: place.length, row })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.offset);
    entries
}

/// Finds the lines of a file that comes in pieces, and holds no more of one than its beginning.
#[derive(Default)]
struct LineScan {
    /// Where the current line begins.
    start: u64,
    /// How much of the file has come.
    read: u64,
    /// The beginning of the current line.
    head: Vec<u8>,
}

impl LineScan {
    /// Gives the row, the offset and the length of every line that ends in the next piece.
    fn push(&mut self, piece: &[u8], mut each: impl FnMut(u32, u64, u32)) {
        let mut rest = piece;
        while let Some(end) = memchr(b'\n', rest) {
            self.keep(&rest[..end]);
            self.read += end as u64 + 1;
            let length = u32::try_from(self.read - self.start).expect("answers are bounded");
            if let Some(row) = self.head.get(ID_AT).and_then(|id| row_of_line_id(str::from_utf8(id).ok()?)) {
                each(row, self.start, length);
            }
            self.start = self.read;
            self.head.clear();
            rest = &rest[end + 1..];
        }
        self.keep(rest);
        self.read += rest.len() as u64;
    }

    fn keep(&mut self, bytes: &[u8]) {
        let missing = ID_AT.end - self.head.len();
        self.head.extend_from_slice(&bytes[..missing.min(bytes.len())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{BatchId, RequestId};
    use crate::domain::line::{NeverRan, never_ran};

    #[test]
    fn lines_are_found_however_the_file_is_cut_into_pieces() {
        let batch = BatchId::new();
        let rows = [7, 0, 0xffff_fffe, 3];
        let lines = rows.map(|row| never_ran(RequestId { batch, row }, "é\"", NeverRan::Expired, None));
        let file = lines.concat();

        for size in [1, 2, 48, 49, 50, 1000] {
            let (mut scan, mut found) = (LineScan::default(), Vec::new());
            for piece in file.chunks(size) {
                scan.push(piece, |row, offset, length| found.push((row, offset, length)));
            }

            let cut = |&(_, offset, length): &(u32, u64, u32)| {
                let start = usize::try_from(offset).expect("few");
                file[start..start + length as usize].to_vec()
            };
            assert_eq!(found.iter().map(|line| line.0).collect::<Vec<_>>(), rows, "{size}");
            assert_eq!(found.iter().map(cut).collect::<Vec<_>>(), lines, "{size}");
        }
    }
}

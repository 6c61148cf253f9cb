//! Reading rows of a batch's input file: through its row index, or by the name the client gave one.

use std::ops::Range;
use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use roaring::RoaringBitmap;

use super::BatchInput;
use super::blobs::{BlobError, Blobs, FileBytes};
use crate::domain::file::FilePart;
use crate::domain::index::{self, IndexEntry};
use crate::domain::row::RowCall;
use crate::domain::splitter::{Line, LineSplitter};

/// How many bytes the rows of a slice have, and are read at once. Small: one slow row keeps the memory of its whole
/// read.
pub const READ_BYTES: u64 = 128 << 10;
/// Reads under way for rows that are no neighbours, so that an object store's time for each is spent together.
pub(super) const READS_AT_ONCE: usize = 16;

/// A byte order mark and a carriage return, which a line may have beside its row.
const MARKS: usize = 4;

/// The rows of one batch's input file.
#[derive(Clone)]
pub struct RowReader {
    blobs: Blobs,
    input: BatchInput,
    file: FileBytes,
}

impl RowReader {
    /// A reader of the rows in `input`.
    #[must_use]
    pub fn new(blobs: Blobs, input: BatchInput) -> Self {
        let file = FileBytes::new(input.parts.clone());
        Self { blobs, input, file }
    }

    /// What it reads.
    #[must_use]
    pub fn input(&self) -> &BatchInput {
        &self.input
    }

    /// The entries at these positions of the row index.
    pub async fn entries(&self, positions: Range<u32>) -> Result<Vec<IndexEntry>, BlobError> {
        let bytes = self.blobs.read(self.input.index, IndexEntry::span(positions)).await?;
        Ok(IndexEntry::decode(&bytes).collect())
    }

    /// The lines of some rows, in the order of `entries`, each with its row number. Neighbours are read at once.
    pub async fn lines(&self, entries: &[IndexEntry]) -> Result<Vec<(u32, Bytes)>, BlobError> {
        let runs = stream::iter(index::neighbours(entries, READ_BYTES));
        runs.map(|run| self.lines_of(&entries[run])).buffered(READS_AT_ONCE).try_concat().await
    }

    async fn lines_of(&self, run: &[IndexEntry]) -> Result<Vec<(u32, Bytes)>, BlobError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Vec::new()) };
        // Entries of a damaged index can be anywhere.
        let is_run = run.iter().all(|entry| first.offset <= entry.offset && entry.end() <= last.end());
        if !is_run || last.end() > self.file.len() {
            return Err(BlobError::Short { id: self.input.index });
        }
        read_run(&self.blobs, &self.file, run).await
    }

    /// The line of a row; `None` if there is no such row. Reads the index up to its entry.
    pub async fn line(&self, row: u32) -> Result<Option<Bytes>, BlobError> {
        let Some((_, entry)) = self.find(|entry| entry.row == row).await? else { return Ok(None) };
        Ok(Some(self.file.read(&self.blobs, entry.offset..entry.end()).await?))
    }

    /// The position of a row in the index; `None` if there is no such row.
    pub async fn position(&self, row: u32) -> Result<Option<u32>, BlobError> {
        Ok(self.find(|entry| entry.row == row).await?.map(|(position, _)| position))
    }

    /// The number of the row that has this `custom_id`. Reads the file up to there.
    pub async fn row_named(&self, custom_id: &str) -> Result<Option<u32>, BlobError> {
        let Some(found) = self.line_named(custom_id).await? else { return Ok(None) };
        // Intake numbered the rows. A count made here could differ, for lines of blanks that are longer than any row.
        let indexed = self.find(|entry| entry.offset == found.offset).await?;
        Ok(Some(indexed.map_or(found.counted, |(_, entry)| entry.row)))
    }

    /// The lines of some rows in the order of the file, which is read whole.
    pub async fn lines_of_file(
        &self,
        rows: RoaringBitmap,
    ) -> Result<impl Stream<Item = Result<Bytes, BlobError>> + use<>, BlobError> {
        // What is longer than any row is none.
        let splitter = Some(LineSplitter::new(self.longest_row().await? + MARKS));
        let mut selection = RowSelection { splitter, rows, number: 0 };
        let pieces = self.file.stream(&self.blobs, 0..self.file.len());
        let pieces = pieces.map_ok(Some).chain(stream::iter([Ok(None)]));
        Ok(pieces.map_ok(move |piece| stream::iter(selection.take(piece))).try_flatten())
    }

    async fn line_named(&self, custom_id: &str) -> Result<Option<Named>, BlobError> {
        let mut search = Search { custom_id, rows: 0, found: None };
        // What is longer than any row is not held whole to find out that it is none.
        let mut splitter = LineSplitter::new(self.longest_row().await? + MARKS);
        let mut pieces = pin!(self.file.stream(&self.blobs, 0..self.file.len()));
        while let Some(piece) = pieces.try_next().await? {
            splitter.push(&piece, |line| search.look_at(&line));
            if search.found.is_some() {
                return Ok(search.found);
            }
        }
        splitter.finish(|line| search.look_at(&line));
        Ok(search.found)
    }

    async fn find(&self, is_it: impl Fn(&IndexEntry) -> bool) -> Result<Option<(u32, IndexEntry)>, BlobError> {
        let mut pieces = pin!(self.index().await?);
        let mut positions = 0..;
        while let Some(piece) = pieces.try_next().await? {
            // In this order: the end of the entries takes no position.
            let mut entries = IndexEntry::decode(&piece).zip(positions.by_ref());
            if let Some((entry, position)) = entries.find(|(entry, _)| is_it(entry)) {
                return Ok(Some((position, entry)));
            }
        }
        Ok(None)
    }

    async fn longest_row(&self) -> Result<usize, BlobError> {
        let longest_of = |piece: Bytes| IndexEntry::decode(&piece).map(|entry| entry.length).max().unwrap_or(0);
        let pieces = self.index().await?;
        pieces.try_fold(0, |longest, piece| async move { Ok(longest.max(longest_of(piece) as usize)) }).await
    }

    /// The index in pieces of whole entries.
    async fn index(&self) -> Result<impl Stream<Item = Result<Bytes, BlobError>> + use<>, BlobError> {
        let part = FilePart { blob: self.input.index, bytes: self.blobs.size(self.input.index).await? };
        Ok(FileBytes::new(vec![part]).stream(&self.blobs, 0..part.bytes))
    }
}

/// The bytes that the entries of a run name, each with its row number, by one read from the first to the last. The
/// entries are in the order of the file.
pub(super) async fn read_run(
    blobs: &Blobs,
    file: &FileBytes,
    run: &[IndexEntry],
) -> Result<Vec<(u32, Bytes)>, BlobError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(Vec::new()) };
    let bytes = file.read(blobs, first.offset..last.end()).await?;
    let cut = |entry: &IndexEntry| {
        let start = usize::try_from(entry.offset - first.offset).expect("within what was read");
        (entry.row, bytes.slice(start..start + entry.length as usize))
    };
    Ok(run.iter().map(cut).collect())
}

/// Cuts the lines of some rows out of a file that comes in pieces.
struct RowSelection {
    /// None once the file has ended.
    splitter: Option<LineSplitter>,
    rows: RoaringBitmap,
    /// The number of the next row.
    number: u32,
}

impl RowSelection {
    /// The lines that end in the next piece; `None` is the end of the file.
    fn take(&mut self, piece: Option<Bytes>) -> Vec<Result<Bytes, BlobError>> {
        let Some(mut splitter) = self.splitter.take() else { return Vec::new() };
        let mut lines = Vec::new();
        let each = |line: Line<'_>| lines.extend(self.chosen(&line).map(Ok));
        match piece {
            None => splitter.finish(each),
            Some(piece) => {
                splitter.push(&piece, each);
                self.splitter = Some(splitter);
            }
        }
        lines
    }

    /// Counts a line if it is a row, and returns the row if it is one of those that are looked for.
    fn chosen(&mut self, line: &Line<'_>) -> Option<Bytes> {
        let Line::Whole { bytes, .. } = line else { return None };
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        let number = self.number;
        self.number += 1;
        self.rows.contains(number).then(|| Bytes::copy_from_slice(bytes))
    }
}

/// A line that has the name that was looked for.
#[derive(Clone, Copy)]
struct Named {
    offset: u64,
    /// Its row number, for a line that intake found wrong and did not index.
    counted: u32,
}

/// Looks for a row by its name.
struct Search<'a> {
    custom_id: &'a str,
    rows: u32,
    found: Option<Named>,
}

impl Search<'_> {
    fn look_at(&mut self, line: &Line<'_>) {
        if let Line::Whole { bytes, offset, .. } = line {
            if self.found.is_some() || bytes.trim_ascii().is_empty() {
                return;
            }
            let call = serde_json::from_slice::<RowCall<'_>>(bytes);
            if call.is_ok_and(|call| call.custom_id == self.custom_id) {
                self.found = Some(Named { offset: *offset, counted: self.rows });
            }
        }
        self.rows += 1;
    }
}

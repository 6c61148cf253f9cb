//! Pages of result lines: whole lines from a cursor on, a bounded number of bytes.

use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use memchr::memchr_iter;

use super::{ResultFile, ResultFiles};
use crate::domain::result_cursor::{ResultCursor, ResultKind};
use crate::storage::ReadError;
use crate::storage::blobs::{BlobError, FileBytes};

/// The most bytes of a page, unless its first line alone is longer.
const PAGE_BYTES: u64 = 8 << 20;

/// Which lines a page has: of each file those between two cursors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultPage {
    /// Where it begins.
    pub from: ResultCursor,
    /// Where the next page begins.
    pub next: ResultCursor,
    /// Whether no line is recorded behind it.
    pub is_last: bool,
}

impl ResultPage {
    /// How many bytes its lines have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.next.output - self.from.output + self.next.errors - self.from.errors
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ResultPageError {
    /// The cursor points behind the end of a file, or into a line.
    #[error("the cursor is not at a line of the batch")]
    NoSuchPlace,
    /// The files could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<BlobError> for ResultPageError {
    fn from(error: BlobError) -> Self {
        Self::Read(error.into())
    }
}

/// What a page has room for.
struct Room {
    bytes: u64,
    lines: Option<u64>,
    /// No line is in the page yet, so that one of any length may be.
    is_empty: bool,
}

impl Room {
    fn is_full(&self) -> bool {
        self.bytes == 0 || self.lines == Some(0)
    }

    /// Whether a line fits with which the page has so many bytes more.
    fn has_place_for(&self, bytes: u64) -> bool {
        self.is_empty || bytes <= self.bytes
    }
}

impl ResultFiles {
    /// The page behind a cursor: lines of the output file first, and not more than `limit` of both files.
    ///
    /// # Errors
    /// The cursor is not one of this batch, or the files cannot be read.
    pub async fn page(
        &self,
        from: ResultCursor,
        kind: ResultKind,
        limit: Option<u64>,
    ) -> Result<ResultPage, ResultPageError> {
        let mut room = Room { bytes: PAGE_BYTES, lines: limit, is_empty: true };
        let mut next = from;
        if kind.has_output() {
            next.output = self.end_of(&self.output, from.output, &mut room).await?;
        }
        if kind.has_errors() {
            next.errors = self.end_of(&self.errors, from.errors, &mut room).await?;
        }
        let is_last = (!kind.has_output() || next.output == self.output.len())
            && (!kind.has_errors() || next.errors == self.errors.len());
        Ok(ResultPage { from, next, is_last })
    }

    /// The lines of a page, byte for byte as the files have them.
    pub fn lines(&self, page: &ResultPage) -> impl Stream<Item = Result<Bytes, ReadError>> + Send + use<> {
        let output = self.stream(ResultFile::Output, page.from.output..page.next.output);
        output.chain(self.stream(ResultFile::Errors, page.from.errors..page.next.errors))
    }

    /// The end of the lines of a file that a page takes from `start` on.
    async fn end_of(&self, file: &FileBytes, start: u64, room: &mut Room) -> Result<u64, ResultPageError> {
        let (blobs, length) = (&self.source.blobs, file.len());
        if start > length {
            return Err(ResultPageError::NoSuchPlace);
        }
        if start > 0 && start < length && file.read(blobs, start - 1..start).await?.as_ref() != b"\n" {
            return Err(ResultPageError::NoSuchPlace);
        }
        let left = length - start;
        if room.lines.is_none() && left <= room.bytes {
            room.bytes -= left;
            room.is_empty &= left == 0;
            return Ok(length);
        }
        if room.is_full() {
            return Ok(start);
        }
        let mut taken = TakenLines { start, end: start, read: start };
        let mut pieces = pin!(file.stream(blobs, start..length));
        while let Some(piece) = pieces.try_next().await? {
            if !taken.add(&piece, room) {
                break;
            }
        }
        room.bytes = room.bytes.saturating_sub(taken.end - start);
        Ok(taken.end)
    }
}

/// The lines of a file that a page takes, while they are looked at because not all may fit.
struct TakenLines {
    start: u64,
    /// Behind the last line that fits.
    end: u64,
    /// How far the file was looked at.
    read: u64,
}

impl TakenLines {
    /// Takes the lines that end in the next piece. False if nothing behind it fits.
    fn add(&mut self, piece: &[u8], room: &mut Room) -> bool {
        for at in memchr_iter(b'\n', piece) {
            let end = self.read + at as u64 + 1;
            if !room.has_place_for(end - self.start) {
                return false;
            }
            self.end = end;
            room.is_empty = false;
            room.lines = room.lines.map(|lines| lines - 1);
            if room.lines == Some(0) {
                return false;
            }
        }
        self.read += piece.len() as u64;
        room.has_place_for(self.read - self.start)
    }
}

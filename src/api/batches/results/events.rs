//! Result lines as events, until the batch has ended.

use std::io;

use axum::body::Bytes;
use axum::response::Response;
use bytes::BytesMut;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use memchr::memchr;
use tokio::sync::OwnedSemaphorePermit;

use super::log_break;
use super::reader::{FoundResults, ResultReader};
use crate::api::batches::BatchObject;
use crate::api::{ApiError, sse};
use crate::domain::ids::BatchId;
use crate::domain::result_cursor::ResultCursor;
use crate::storage::ReadError;
use crate::storage::result_files::{ResultFile, ResultFiles, ResultPage};

/// A part of the stream.
type Events = BoxStream<'static, io::Result<Bytes>>;

/// Answers with events from a cursor on.
pub(super) async fn answer(reader: ResultReader, from: ResultCursor) -> Result<Response, ApiError> {
    let permit = reader.app.waits.clone().try_acquire_owned().map_err(|_| ApiError::too_many_waits())?;
    // An error is an answer, and not the end of a stream.
    reader.check(from).await?;
    let state = Some(LiveResults { reader, cursor: from, _permit: permit });
    let parts = stream::try_unfold(state, |state| async move {
        let Some(results) = state else { return Ok(None) };
        results.next().await.map(Some)
    });
    Ok(sse::response(parts.try_flatten()))
}

/// A stream that goes on at a cursor.
struct LiveResults {
    reader: ResultReader,
    cursor: ResultCursor,
    _permit: OwnedSemaphorePermit,
}

impl LiveResults {
    /// The events of the next lines, or a sign of life; and itself, unless the batch has ended or the service stops,
    /// so that the client goes on elsewhere.
    async fn next(mut self) -> io::Result<(Events, Option<Self>)> {
        let found = self.reader.next(self.cursor, None, sse::HEARTBEAT).await;
        // Its cause is in the log.
        let found = found.map_err(|_| io::Error::other("the results cannot be read any more"))?;
        let FoundResults { batch, lines, has_ended } = found;
        let mut events = match &lines {
            Some((files, page)) => events_of(batch.id, files, *page),
            None => stream::iter([Ok(sse::comment())]).boxed(),
        };
        if has_ended {
            let batch = serde_json::to_string(&BatchObject::from(batch)).expect("a batch serialises");
            events = events.chain(stream::iter([Ok(sse::event("end", &batch))])).boxed();
        }
        self.cursor = lines.map_or(self.cursor, |(_, page)| page.next);
        let is_over = has_ended || self.reader.app.stopping.is_cancelled();
        Ok((events, (!is_over).then_some(self)))
    }
}

/// The lines of a page as events.
fn events_of(batch: BatchId, files: &ResultFiles, page: ResultPage) -> Events {
    let ResultPage { from, next, .. } = page;
    let read = |file, range| files.stream(file, range).inspect_err(move |error| log_break(batch, error));
    let output = read(ResultFile::Output, from.output..next.output);
    let errors = read(ResultFile::Errors, from.errors..next.errors);
    let between = ResultCursor { output: next.output, ..from };
    let output = framed(output, ResultFile::Output, from, between);
    output.chain(framed(errors, ResultFile::Errors, between, next)).boxed()
}

/// Turns the lines of a file between two cursors into events, without holding a whole line.
fn framed(
    lines: impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static,
    file: ResultFile,
    from: ResultCursor,
    to: ResultCursor,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let framing = EventFraming { file, cursor: from, is_within_line: false };
    stream::try_unfold((lines.boxed(), framing), move |(mut lines, mut framing)| async move {
        match lines.try_next().await.map_err(io::Error::other)? {
            Some(piece) => Ok(Some((framing.push(&piece), (lines, framing)))),
            None if framing.cursor == to => Ok(None),
            // The file was deleted meanwhile.
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    })
}

/// Where the events of one file stand.
struct EventFraming {
    file: ResultFile,
    cursor: ResultCursor,
    is_within_line: bool,
}

impl EventFraming {
    /// The events of the next piece of the file. The id is behind the data, as only there it is known.
    fn push(&mut self, piece: &[u8]) -> Bytes {
        let mut events = BytesMut::with_capacity(piece.len() + 256);
        let mut rest = piece;
        while let Some(end) = memchr(b'\n', rest) {
            self.append(&mut events, &rest[..end]);
            self.advance(1);
            events.extend_from_slice(format!("\nid: {}\n\n", self.cursor).as_bytes());
            self.is_within_line = false;
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            self.append(&mut events, rest);
        }
        events.freeze()
    }

    fn append(&mut self, events: &mut BytesMut, text: &[u8]) {
        if !self.is_within_line {
            events.extend_from_slice(match self.file {
                ResultFile::Output => b"event: output\ndata: ",
                ResultFile::Errors => b"event: error\ndata: ",
            });
            self.is_within_line = true;
        }
        events.extend_from_slice(text);
        self.advance(text.len() as u64);
    }

    fn advance(&mut self, bytes: u64) {
        match self.file {
            ResultFile::Output => self.cursor.output += bytes,
            ResultFile::Errors => self.cursor.errors += bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_the_same_events_however_they_come_in_pieces() {
        let lines = "{\"a\":1}\n{\"b\":\"é\"}\n";
        let expected = "event: error\ndata: {\"a\":1}\nid: 5-108\n\nevent: error\ndata: {\"b\":\"é\"}\nid: 5-119\n\n";

        for size in 1..=lines.len() {
            let cursor = ResultCursor { output: 5, errors: 100 };
            let mut framing = EventFraming { file: ResultFile::Errors, cursor, is_within_line: false };
            let events: Vec<Bytes> = lines.as_bytes().chunks(size).map(|piece| framing.push(piece)).collect();

            assert_eq!(str::from_utf8(&events.concat()), Ok(expected), "{size}");
        }
    }
}

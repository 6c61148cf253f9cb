//! Cutting what a server sends into lines, and telling their kinds apart.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use memchr::memchr;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::AsyncWrite;

use super::targets::Sinks;
use crate::domain::result_cursor::ResultKind;

/// Writes whole lines only, so that a broken connection leaves no half line behind.
pub(super) struct LineWriter<'a> {
    sinks: &'a mut Sinks,
    /// The kind of all lines, if they come from one file.
    kind: Option<ResultKind>,
    /// Lines at the beginning that were written before.
    skip: u64,
    whole_lines: u64,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl<'a> LineWriter<'a> {
    pub(super) fn new(sinks: &'a mut Sinks, kind: Option<ResultKind>, skip: u64) -> Self {
        Self { sinks, kind, skip, whole_lines: 0, rest: Vec::new() }
    }

    /// Whole lines that came, also those that were skipped.
    pub(super) fn whole_lines(&self) -> u64 {
        self.whole_lines
    }

    /// Takes a piece, cut anywhere.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, others) = piece.split_at(end + 1);
            piece = others;
            if self.rest.is_empty() {
                self.line(line)?;
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.line(&whole)?;
            }
        }
        self.rest.extend_from_slice(piece);
        self.sinks.flush()
    }

    /// Everything has come. Some servers leave out the last line end.
    pub(super) fn end(mut self) -> io::Result<()> {
        if self.rest.is_empty() { Ok(()) } else { self.push(b"\n") }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.whole_lines += 1;
        if self.whole_lines <= self.skip {
            return Ok(());
        }
        self.sinks.write(self.kind, line)
    }
}

impl AsyncWrite for LineWriter<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.push(piece).map(|()| piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The kind of a line: the output file has the answers with success, the error file all else. `None` if it is no whole
/// line of either.
pub(super) fn kind_of(line: &[u8]) -> Option<ResultKind> {
    #[derive(Deserialize)]
    struct LineHead {
        response: Option<LineAnswer>,
        error: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct LineAnswer {
        status_code: u16,
    }
    let LineHead { response, error } = serde_json::from_slice(line).ok()?;
    let has_success = response.is_some_and(|response| (200..300).contains(&response.status_code));
    Some(if has_success && error.is_none() { ResultKind::Output } else { ResultKind::Errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_of_the_output_file_if_its_row_succeeded() {
        let cases = [
            (r#"{"id":"b","response":{"status_code":200,"body":{"error":1}},"error":null}"#, Some(ResultKind::Output)),
            (r#"{"custom_id":"a","response":{"status_code":429,"body":{}},"error":null}"#, Some(ResultKind::Errors)),
            (r#"{"response":{"status_code":200,"body":{}},"error":{"code":"c"}}"#, Some(ResultKind::Errors)),
            (r#"{"custom_id":"a","response":null,"error":{"code":"c"}}"#, Some(ResultKind::Errors)),
            (r#""body":{}},"error":null}"#, None),
        ];
        for (line, kind) in cases {
            assert_eq!(kind_of(line.as_bytes()), kind, "{line}");
        }
    }
}

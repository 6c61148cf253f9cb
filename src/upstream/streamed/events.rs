//! Server-sent events: the data of each, from bytes that come in any pieces.

use bytes::BytesMut;
use memchr::memchr;

use crate::domain::splitter::BYTE_ORDER_MARK;

/// Splits bytes into events.
#[derive(Debug, Default)]
pub(in crate::upstream) struct EventStream {
    /// Bytes of lines that were not looked at.
    rest: BytesMut,
    /// So many of them have no line end.
    searched: usize,
    /// Whether a line was looked at.
    has_begun: bool,
    /// Whether the event that has not ended is an `error`.
    is_error: bool,
    /// The data lines of an event that has not ended.
    data: Vec<u8>,
}

impl EventStream {
    /// Takes in bytes.
    pub(in crate::upstream) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// A line without the byte order mark that a stream may begin with.
    fn without_mark<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        if is_first { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line }
    }

    /// The data of the next event that is complete, and whether the event is an `error`.
    pub(in crate::upstream) fn next_event(&mut self) -> Option<(Vec<u8>, bool)> {
        loop {
            let Some(end) = memchr(b'\n', &self.rest[self.searched..]) else {
                self.searched = self.rest.len();
                return None;
            };
            let line = self.rest.split_to(std::mem::take(&mut self.searched) + end + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = self.without_mark(line);
            match line.strip_prefix(b"data:") {
                Some(data) => self.add(data.strip_prefix(b" ").unwrap_or(data)),
                None if line.is_empty() && self.data.is_empty() => self.is_error = false,
                None if line.is_empty() => {
                    return Some((std::mem::take(&mut self.data), std::mem::take(&mut self.is_error)));
                }
                None => self.is_error |= line.strip_prefix(b"event:").is_some_and(|kind| kind.trim_ascii() == b"error"),
            }
        }
    }

    fn add(&mut self, data: &[u8]) {
        if !self.data.is_empty() {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
    }

    /// Bytes of an event that has not ended.
    pub(in crate::upstream) fn held(&self) -> usize {
        self.rest.len() + self.data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_the_same_in_whatever_pieces_they_come() {
        let text = b": keep-alive\n\ndata: {\"a\":1}\n\nevent: error\r\nid: 7\r\ndata:one\r\ndata: two\r\n\r\n\n\n\
                     data: [DONE]\n\ndata: no end";
        for size in 1..=text.len() {
            let (mut events, mut seen) = (EventStream::default(), Vec::new());
            for piece in text.chunks(size) {
                events.push(piece);
                seen.extend(std::iter::from_fn(|| events.next_event()));
            }
            let expected = [(&b"{\"a\":1}"[..], false), (b"one\ntwo", true), (b"[DONE]", false)];
            let seen: Vec<_> = seen.iter().map(|(data, is_error)| (&data[..], *is_error)).collect();
            assert_eq!(seen, expected, "pieces of {size} bytes");
            assert_eq!(events.held(), "data: no end".len());
        }
    }
}

//! Server-sent events: the data of each, from bytes that come in any pieces.

use bytes::BytesMut;
use memchr::memchr;

/// Splits bytes into events.
#[derive(Debug, Default)]
pub(in crate::upstream) struct EventStream {
    /// Bytes that were not looked at.
    rest: BytesMut,
    /// The data lines of an event that has not ended.
    data: Vec<u8>,
}

impl EventStream {
    /// Takes in bytes.
    pub(in crate::upstream) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The data of the next event that is complete.
    pub(in crate::upstream) fn next_data(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = memchr(b'\n', &self.rest)?;
            let line = self.rest.split_to(end + 1);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.strip_prefix(b"data:") {
                Some(data) => self.add(data.strip_prefix(b" ").unwrap_or(data)),
                None if line.is_empty() && !self.data.is_empty() => return Some(std::mem::take(&mut self.data)),
                None => {}
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
        let text = b": keep-alive\n\ndata: {\"a\":1}\n\nevent: x\r\nid: 7\r\ndata:one\r\ndata: two\r\n\r\n\n\n\
                     data: [DONE]\n\ndata: no end";
        for size in 1..=text.len() {
            let (mut events, mut seen) = (EventStream::default(), Vec::new());
            for piece in text.chunks(size) {
                events.push(piece);
                seen.extend(std::iter::from_fn(|| events.next_data()));
            }
            let texts = [&b"{\"a\":1}"[..], b"one\ntwo", b"[DONE]"];
            assert_eq!(seen, texts, "pieces of {size} bytes");
            assert_eq!(events.held(), "data: no end".len());
        }
    }
}

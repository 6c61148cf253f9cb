//! Cutting a stream of chunks into lines. A line that lies within one chunk is not copied.

use memchr::memchr;

/// What some editors and servers put before a text in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Cuts chunks into lines.
pub struct LineSplitter {
    /// The start of a line whose end has not arrived yet.
    carry: Vec<u8>,
    /// Where the current line starts in the file.
    offset: u64,
    /// The number of the current line, counted from 1.
    number: u64,
    max_line_bytes: usize,
    /// The current line is too long; the rest of it is thrown away.
    is_skipping: bool,
}

/// One line of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its line end and, on the first, without a byte order mark.
    Whole {
        /// Its bytes.
        bytes: &'a [u8],
        /// The offset of the bytes in the file.
        offset: u64,
        /// The line's number, counted from 1.
        number: u64,
    },
    /// A line longer than the bound.
    TooLong {
        /// The line's number, counted from 1.
        number: u64,
    },
}

impl LineSplitter {
    /// A splitter at the start of a file. It holds at most `max_line_bytes`.
    #[must_use]
    pub fn new(max_line_bytes: usize) -> Self {
        Self { carry: Vec::new(), offset: 0, number: 1, max_line_bytes, is_skipping: false }
    }

    /// Takes the next chunk and gives every line that ends in it to `each`.
    pub fn push(&mut self, mut chunk: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(b'\n', chunk) {
            let (head, tail) = (&chunk[..end], &chunk[end + 1..]);
            let is_too_long = self.carry.len() + head.len() > self.max_line_bytes;
            if is_too_long && !self.is_skipping {
                each(Line::TooLong { number: self.number });
            }
            if is_too_long || self.is_skipping {
                self.offset += (self.carry.len() + head.len() + 1) as u64;
            } else if self.carry.is_empty() {
                self.give(head, &mut each);
                self.offset += (head.len() + 1) as u64;
            } else {
                let mut line = std::mem::take(&mut self.carry);
                line.extend_from_slice(head);
                self.give(&line, &mut each);
                self.offset += (line.len() + 1) as u64;
                line.clear();
                self.carry = line;
            }
            self.carry.clear();
            self.is_skipping = false;
            self.number += 1;
            chunk = tail;
        }
        self.keep(chunk, &mut each);
    }

    /// Gives the last line, if the file does not end in a line end.
    pub fn finish(mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.carry.is_empty() && !self.is_skipping {
            let line = std::mem::take(&mut self.carry);
            self.give(&line, &mut each);
        }
    }

    fn keep(&mut self, rest: &[u8], each: &mut impl FnMut(Line<'_>)) {
        if !self.is_skipping && self.carry.len() + rest.len() > self.max_line_bytes {
            each(Line::TooLong { number: self.number });
            self.is_skipping = true;
            self.offset += self.carry.len() as u64;
            // Another line of this length is unlikely: free the memory.
            self.carry = Vec::new();
        }
        if self.is_skipping {
            self.offset += rest.len() as u64;
        } else {
            self.carry.extend_from_slice(rest);
        }
    }

    fn give(&self, line: &[u8], each: &mut impl FnMut(Line<'_>)) {
        let mark = if self.number == 1 && line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let line = &line[mark..];
        let bytes = line.strip_suffix(b"\r").unwrap_or(line);
        each(Line::Whole { bytes, offset: self.offset + mark as u64, number: self.number });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of `file`, cut into chunks of `size`, as (offset, text), or the number of one that is too long.
    fn split(file: &[u8], size: usize, max: usize) -> Vec<Result<(u64, String), u64>> {
        let mut lines = Vec::new();
        let mut each = |line: Line<'_>| {
            lines.push(match line {
                Line::Whole { bytes, offset, number } => {
                    assert_eq!(&file[usize::try_from(offset).unwrap()..][..bytes.len()], bytes, "line {number}");
                    Ok((number, String::from_utf8(bytes.to_vec()).unwrap()))
                }
                Line::TooLong { number } => Err(number),
            });
        };
        let mut splitter = LineSplitter::new(max);
        for chunk in file.chunks(size) {
            splitter.push(chunk, &mut each);
        }
        splitter.finish(each);
        lines
    }

    #[expect(clippy::unnecessary_wraps, reason = "an element of what `split` returns")]
    fn line(number: u64, text: &str) -> Result<(u64, String), u64> {
        Ok((number, text.to_owned()))
    }

    #[test]
    fn lines_are_the_same_however_the_file_is_cut() {
        let file = b"one\r\n\ntwo\n three \nfour";
        for size in 1..=file.len() {
            assert_eq!(
                split(file, size, 100),
                [line(1, "one"), line(2, ""), line(3, "two"), line(4, " three "), line(5, "four")],
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_byte_order_mark_is_left_out_of_the_first_line_only() {
        let file = "\u{feff}a\n\u{feff}b\n".as_bytes();
        for size in 1..=file.len() {
            assert_eq!(split(file, size, 100), [line(1, "a"), line(2, "\u{feff}b")]);
        }
    }

    #[test]
    fn long_lines_are_skipped_and_their_neighbours_are_not() {
        let file = b"abc\nabcdefgh\nxyz\nabcdefghijkl";
        for size in 1..=file.len() {
            assert_eq!(split(file, size, 5), [line(1, "abc"), Err(2), line(3, "xyz"), Err(4)], "chunks of {size}");
        }
    }

    #[test]
    fn an_empty_file_has_no_lines() {
        assert!(split(b"", 1, 5).is_empty());
    }
}

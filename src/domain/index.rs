//! The row index of a batch input file: where each row starts and how long it is, in dispatch order.
//!
//! Dispatch order groups the rows by model, so that a lane is a range of positions. The rows of a model are in file
//! order, or grouped by the beginning of their prompts (`intake/prompt_order.rs`). The index is a blob of fixed-width
//! entries: a lease is read with one ranged read.

use std::ops::Range;

/// One row of an input file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Where the line starts, in bytes from the start of the file.
    pub offset: u64,
    /// How long the line is, in bytes, without its line end.
    pub length: u32,
    /// The row number: the rows of a file are counted from 0, blank lines are not rows.
    pub row: u32,
}

impl IndexEntry {
    /// Bytes of one entry in the index blob.
    pub const WIDTH: usize = 16;

    /// The entry as it stands in the blob: little-endian offset, length, row.
    #[must_use]
    pub fn encode(self) -> [u8; Self::WIDTH] {
        let mut bytes = [0; Self::WIDTH];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..].copy_from_slice(&self.row.to_le_bytes());
        bytes
    }

    /// Reads entries back; bytes beyond the last whole entry are left out.
    pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Self> + '_ {
        bytes.chunks_exact(Self::WIDTH).map(|entry| Self {
            offset: u64::from_le_bytes(entry[..8].try_into().expect("eight bytes")),
            length: u32::from_le_bytes(entry[8..12].try_into().expect("four bytes")),
            row: u32::from_le_bytes(entry[12..].try_into().expect("four bytes")),
        })
    }

    /// Where the line ends.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// Where positions `first..last` stand in the index blob.
    #[must_use]
    pub fn span(positions: Range<u32>) -> Range<u64> {
        let width = Self::WIDTH as u64;
        u64::from(positions.start) * width..u64::from(positions.end) * width
    }
}

/// Cuts entries into slices of at most `max_bytes` of rows, unless a single row is longer.
#[must_use]
pub fn slices(entries: &[IndexEntry], max_bytes: u64) -> Vec<Range<usize>> {
    let mut bytes = entries.first().map_or(0, |entry| u64::from(entry.length));
    cut(entries, |_, next| {
        let length = u64::from(next.length);
        let fits = bytes + length <= max_bytes;
        bytes = if fits { bytes + length } else { length };
        fits
    })
}

/// Cuts entries into runs of rows that are close neighbours in the file, each of which is best read at once. From its
/// first row to its last, gaps included, a run has at most `max_bytes`, unless a single row is longer.
#[must_use]
pub fn neighbours(entries: &[IndexEntry], max_bytes: u64) -> Vec<Range<usize>> {
    let mut begins = entries.first().map_or(0, |entry| entry.offset);
    cut(entries, |entry, next| {
        // The bytes of a gap are read and thrown away, which is cheaper than another read up to about a page.
        let is_near = next.offset >= entry.end() && next.offset - entry.end() <= 4096;
        let fits = is_near && next.end() - begins <= max_bytes;
        begins = if fits { begins } else { next.offset };
        fits
    })
}

/// The positions in `entries` of runs of which each entry belongs together with the one before.
fn cut(entries: &[IndexEntry], is_together: impl FnMut(&IndexEntry, &IndexEntry) -> bool) -> Vec<Range<usize>> {
    let mut end = 0;
    let run = |run: &[IndexEntry]| {
        let start = end;
        end += run.len();
        start..end
    };
    entries.chunk_by(is_together).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: u64, length: u32) -> IndexEntry {
        IndexEntry { offset, length, row: 0 }
    }

    #[test]
    fn entries_survive_encoding() {
        let entries = [
            IndexEntry { offset: 0, length: 1, row: 2 },
            IndexEntry { offset: u64::MAX - 9, length: 9, row: u32::MAX },
        ];
        let blob: Vec<u8> = entries.iter().flat_map(|entry| entry.encode()).collect();

        assert_eq!(IndexEntry::decode(&blob).collect::<Vec<_>>(), entries);
        assert_eq!(IndexEntry::span(1..2), 16..32);
    }

    #[test]
    fn slices_are_bounded_and_neighbours_read_at_once() {
        let entries = [entry(0, 10), entry(11, 10), entry(22, 10), entry(9000, 10), entry(8000, 10), entry(8011, 500)];

        let slices: Vec<usize> = slices(&entries, 25).into_iter().map(|slice| slice.len()).collect();
        let read = |max_bytes| neighbours(&entries, max_bytes).into_iter().map(|run| run.len()).collect::<Vec<usize>>();

        assert_eq!(slices, [2, 2, 1, 1]);
        assert_eq!(read(1000), [3, 1, 2]);
        assert_eq!(read(25), [2, 1, 1, 1, 1]);
    }

    #[test]
    fn the_gaps_between_rows_count_as_what_is_read() {
        let entries: Vec<_> = (0..100).map(|row| entry(row * 4000, 10)).collect();

        assert_eq!(slices(&entries, 1000).len(), 1);
        assert!(neighbours(&entries, 100_000).iter().all(|run| run.len() <= 25));
    }

    #[test]
    fn no_entries_make_no_slices() {
        assert!(slices(&[], 10).is_empty());
    }
}

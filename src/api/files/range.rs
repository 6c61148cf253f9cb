//! The `Range` header (RFC 9110, section 14), as far as downloads need it: one range of bytes.

use std::ops::Range;

/// The bytes of a file that a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestedRange {
    /// The whole file: the header is absent, or not understood and so ignored.
    Whole,
    /// This part, which is not empty.
    Part(Range<u64>),
    /// A part that the file does not have.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `length` bytes.
pub(super) fn requested_range(header: Option<&str>, length: u64) -> RequestedRange {
    let Some((from, to)) = header.and_then(|header| header.strip_prefix("bytes=")).and_then(|set| set.split_once('-'))
    else {
        return RequestedRange::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let range = match (from.trim(), to.trim()) {
        ("", suffix) => number(suffix).map(|suffix| length.saturating_sub(suffix)..length),
        (from, "") => number(from).map(|from| from..length),
        // The header's last position is part of the range.
        (from, to) => number(from).and_then(|from| Ok(from..number(to)?.saturating_add(1).min(length).max(from))),
    };
    match range {
        Err(_) => RequestedRange::Whole,
        Ok(range) if range.start >= range.end => RequestedRange::Unsatisfiable,
        Ok(range) => RequestedRange::Part(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_range_is_read() {
        let cases = [
            (None, RequestedRange::Whole),
            (Some("bytes=0-0"), RequestedRange::Part(0..1)),
            (Some("bytes=2-5"), RequestedRange::Part(2..6)),
            (Some("bytes=2-"), RequestedRange::Part(2..10)),
            (Some("bytes=2-99"), RequestedRange::Part(2..10)),
            (Some("bytes=-3"), RequestedRange::Part(7..10)),
            (Some("bytes=-99"), RequestedRange::Part(0..10)),
            (Some("bytes=10-"), RequestedRange::Unsatisfiable),
            (Some("bytes=-0"), RequestedRange::Unsatisfiable),
            (Some("bytes=0-1,3-4"), RequestedRange::Whole),
            (Some("lines=0-1"), RequestedRange::Whole),
            (Some("bytes=x-1"), RequestedRange::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(requested_range(header, 10), expected, "{header:?}");
        }
    }
}

//! The `Range` header (RFC 9110, section 14), as far as downloads need it: one range of bytes.

use std::ops::Range;

/// What part of a file of `length` bytes is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: no header, or one that is not understood and so is to be ignored.
    Whole,
    /// This part, which is not empty.
    Part(Range<u64>),
    /// A part that the file does not have.
    Unsatisfiable,
}

/// Reads a `Range` header.
pub(super) fn asked(header: Option<&str>, length: u64) -> Asked {
    let Some((from, to)) = header.and_then(|header| header.strip_prefix("bytes=")).and_then(|set| set.split_once('-'))
    else {
        return Asked::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    let range = match (from.trim(), to.trim()) {
        ("", suffix) => number(suffix).map(|suffix| length.saturating_sub(suffix)..length),
        (from, "") => number(from).map(|from| from..length),
        // The header's last position is part of the range.
        (from, to) => number(from).and_then(|from| Ok(from..number(to)?.saturating_add(1).min(length).max(from))),
    };
    match range {
        Err(_) => Asked::Whole,
        Ok(range) if range.start >= range.end => Asked::Unsatisfiable,
        Ok(range) => Asked::Part(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_range_is_read() {
        let cases = [
            (None, Asked::Whole),
            (Some("bytes=0-0"), Asked::Part(0..1)),
            (Some("bytes=2-5"), Asked::Part(2..6)),
            (Some("bytes=2-"), Asked::Part(2..10)),
            (Some("bytes=2-99"), Asked::Part(2..10)),
            (Some("bytes=-3"), Asked::Part(7..10)),
            (Some("bytes=-99"), Asked::Part(0..10)),
            (Some("bytes=10-"), Asked::Unsatisfiable),
            (Some("bytes=-0"), Asked::Unsatisfiable),
            (Some("bytes=0-1,3-4"), Asked::Whole),
            (Some("lines=0-1"), Asked::Whole),
            (Some("bytes=x-1"), Asked::Whole),
        ];
        for (header, expected) in cases {
            assert_eq!(asked(header, 10), expected, "{header:?}");
        }
    }
}

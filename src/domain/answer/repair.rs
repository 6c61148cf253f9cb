//! Repairs of bodies that are JSON but for a small fault of the server.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;

use crate::domain::splitter::BYTE_ORDER_MARK;

/// The end of a stream, which some gateways send behind a plain answer too.
const END_OF_STREAM: &[u8] = b"data: [DONE]";
/// Numbers of Python that JSON does not have.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// A body without a byte order mark before it and without the end of a stream behind it. Bytes that are not UTF-8 are
/// U+FFFD, and numbers that JSON does not have are null. `None` if nothing of that was in it.
#[must_use]
pub fn repaired(body: &[u8]) -> Option<Bytes> {
    let trimmed = body.trim_ascii();
    let value = trimmed.strip_prefix(BYTE_ORDER_MARK).unwrap_or(trimmed);
    let value = value.strip_suffix(END_OF_STREAM).unwrap_or(value).trim_ascii();
    let text = String::from_utf8_lossy(value);
    let repaired = with_nulls(text.as_bytes());
    (repaired.len() != trimmed.len() || repaired[..] != *trimmed).then(|| repaired.into_owned().into())
}

/// JSON with null in place of numbers that it does not have.
fn with_nulls(json: &[u8]) -> Cow<'_, [u8]> {
    if !NO_NUMBERS.iter().any(|number| memmem::find(json, number).is_some()) {
        return json.into();
    }
    let (mut repaired, mut rest, mut is_in_string) = (Vec::with_capacity(json.len()), json, false);
    while let [first, behind @ ..] = rest {
        let number = NO_NUMBERS.iter().find(|number| !is_in_string && rest.starts_with(number));
        let taken = match (first, number) {
            (_, Some(number)) => {
                repaired.extend_from_slice(b"null");
                rest = &rest[number.len()..];
                continue;
            }
            // The byte behind it belongs to it.
            (b'\\', None) if is_in_string && !behind.is_empty() => 2,
            (b'"', None) => {
                is_in_string = !is_in_string;
                1
            }
            _ => 1,
        };
        repaired.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    repaired.into()
}

/// JSON in which each half of a surrogate pair that stands alone, as in an answer that was cut off within an emoji, is
/// U+FFFD. With such halves, no string of it can be read.
#[must_use]
pub fn without_lone_surrogates(json: &[u8]) -> Cow<'_, [u8]> {
    if !memmem::find_iter(json, b"\\u").any(|at| half(&json[at..]).is_some()) {
        return json.into();
    }
    let (mut repaired, mut rest) = (Vec::with_capacity(json.len()), json);
    while let Some(at) = memchr::memchr(b'\\', rest) {
        repaired.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let taken = match half(rest) {
            Some(Half::Leading) if half(&rest[6..]) == Some(Half::Trailing) => 12,
            Some(_) => {
                repaired.extend_from_slice("\u{fffd}".as_bytes());
                rest = &rest[6..];
                continue;
            }
            None => rest.len().min(2),
        };
        repaired.extend_from_slice(&rest[..taken]);
        rest = &rest[taken..];
    }
    repaired.extend_from_slice(rest);
    repaired.into()
}

#[derive(Debug, PartialEq)]
enum Half {
    Leading,
    Trailing,
}

/// Which half of a surrogate pair the escape at the beginning of `json` is.
fn half(json: &[u8]) -> Option<Half> {
    let digits = json.strip_prefix(b"\\u")?.get(..4)?;
    match u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()? {
        0xd800..=0xdbff => Some(Half::Leading),
        0xdc00..=0xdfff => Some(Half::Trailing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_surrogate_pairs_that_stand_alone_are_replaced() {
        let cases = [
            (r#""a \ud83d b""#, "\"a \u{fffd} b\""),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\\ud83d\\ude00\""),
            (r#""\uDE00""#, "\"\u{fffd}\""),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\u00e9\"""#, r#""\u00e9\"""#),
            (r#""\ud83"#, r#""\ud83"#),
        ];
        for (json, expected) in cases {
            assert_eq!(str::from_utf8(&without_lone_surrogates(json.as_bytes())), Ok(expected), "{json}");
        }
    }
}

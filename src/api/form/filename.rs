//! The name of an uploaded file, out of its part's `Content-Disposition` (RFC 7578, section 4.2).
//!
//! `filename*` (RFC 8187) counts more than `filename`, as RFC 6266 has it. .NET writes names that are not ASCII as
//! encoded words (RFC 2047). Percent signs in a `filename` are part of the name: whether a client encoded them cannot
//! be known.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The name that the header gives; empty if there is none, or if it cannot be decoded.
pub(super) fn filename(disposition: &[u8]) -> String {
    let (mut plain, mut extended) = (None, None);
    for (name, value) in parameters(disposition) {
        if name.eq_ignore_ascii_case(b"filename*") {
            extended = extended.or_else(|| extended_value(str::from_utf8(&value).ok()?));
        } else if name.eq_ignore_ascii_case(b"filename") {
            plain = plain.or_else(|| String::from_utf8(value).ok());
        }
    }
    extended.or_else(|| plain.map(|plain| encoded_words(&plain).unwrap_or(plain))).unwrap_or_default()
}

/// The parameters behind the type, without the quotes of their values.
fn parameters(disposition: &[u8]) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
    let mut rest = disposition;
    std::iter::from_fn(move || {
        loop {
            // Between parameters, so that this semicolon is not a quoted one.
            rest = &rest[memchr::memchr(b';', rest)? + 1..];
            let Some(end) = memchr::memchr2(b'=', b';', rest).filter(|end| rest[*end] == b'=') else { continue };
            let name = rest[..end].trim_ascii();
            let (value, behind) = value(rest[end + 1..].trim_ascii_start());
            rest = behind;
            return Some((name, value));
        }
    })
}

/// The value that a text begins with, and the text behind it.
fn value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let (value, behind) = text.split_at(memchr::memchr(b';', text).unwrap_or(text.len()));
        return (value.trim_ascii_end().to_vec(), behind);
    };
    let (mut value, mut at) = (Vec::new(), 0);
    while let Some(&byte) = quoted.get(at).filter(|byte| **byte != b'"') {
        // Only quotes are escaped: other backslashes are those of a path.
        let is_escape = byte == b'\\' && quoted.get(at + 1) == Some(&b'"');
        at += usize::from(is_escape);
        value.push(quoted[at]);
        at += 1;
    }
    (value, &quoted[at..])
}

/// `charset'language'percent-encoded`.
fn extended_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    decoded(charset, unescaped(encoded, b'%')?)
}

/// The text of one or more `=?charset?encoding?text?=`; nothing if there is anything else.
fn encoded_words(text: &str) -> Option<String> {
    text.split_ascii_whitespace().map(encoded_word).collect::<Option<String>>().filter(|name| !name.is_empty())
}

fn encoded_word(word: &str) -> Option<String> {
    let mut fields = word.strip_prefix("=?")?.strip_suffix("?=")?.split('?');
    let (charset, encoding, text) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }
    let bytes = match encoding {
        "B" | "b" => BASE64_STANDARD.decode(text).ok()?,
        "Q" | "q" => unescaped(&text.replace('_', " "), b'=')?,
        _ => return None,
    };
    decoded(charset, bytes)
}

/// The bytes of a text in which `escape` and two hexadecimal digits stand for one.
fn unescaped(text: &str, escape: u8) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut unescaped = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        unescaped.push(if byte == escape { u8::try_from(digit()? * 16 + digit()?).ok()? } else { byte });
    }
    Some(unescaped)
}

fn decoded(charset: &str, bytes: Vec<u8>) -> Option<String> {
    if charset.eq_ignore_ascii_case("utf-8") {
        String::from_utf8(bytes).ok()
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.into_iter().map(char::from).collect())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_decoded_as_its_parameter_says() {
        let cases = [
            ("", ""),
            ("; name=file", ""),
            ("; filename=a.jsonl", "a.jsonl"),
            ("; filename=\"a.jsonl\"", "a.jsonl"),
            ("; FileName = \"a b.jsonl\" ; x=y", "a b.jsonl"),
            ("; filename=\"a;b=\\\"c\\\".jsonl\"; name=file", "a;b=\"c\".jsonl"),
            ("; filename=\"C:\\dir\\a.jsonl\"", "C:\\dir\\a.jsonl"),
            ("; filename=\"open", "open"),
            ("; x; filename=\"a.jsonl\"", "a.jsonl"),
            ("; name=\"; filename=b\"; filename=a", "a"),
            ("; filename=a; filename=b", "a"),
            // The extended form counts more, in any order, quoted or not.
            ("; filename=a; filename*=utf-8''b", "b"),
            ("; filename*=UTF-8'en'%e2%82%ac%20; filename=a", "€ "),
            ("; filename*=\"utf-8''%D1%8F.jsonl\"; filename=\"_.jsonl\"", "я.jsonl"),
            ("; filename*=iso-8859-1''%E9.jsonl", "é.jsonl"),
            // One that cannot be decoded does not count.
            ("; filename*=koi8-r''%D1; filename=a", "a"),
            ("; filename*=utf-8''%zz", ""),
            ("; filename*=utf-8''%F; filename=a", "a"),
            ("; filename*=utf-8''%FF", ""),
            ("; filename*=plain", ""),
            // Encoded words.
            ("; filename=\"=?utf-8?B?0Y8uanNvbmw=?=\"", "я.jsonl"),
            ("; filename==?UTF-8?q?=D1=8F_b.jsonl?=", "я b.jsonl"),
            ("; filename=\"=?iso-8859-1?Q?=E9?= =?utf-8?Q?.jsonl?=\"", "é.jsonl"),
            ("; filename=\"=?utf-8?B?0Y8?=\"", "=?utf-8?B?0Y8?="),
            ("; filename=\"=?utf-8?X?a?=\"", "=?utf-8?X?a?="),
            ("; filename=\"=?koi8-r?Q?a?=\"", "=?koi8-r?Q?a?="),
            ("; filename=\"x =?utf-8?Q?a?=\"", "x =?utf-8?Q?a?="),
            // A name may have percent signs.
            ("; filename=\"%D1%8F.jsonl\"", "%D1%8F.jsonl"),
        ];
        for (parameters, expected) in cases {
            assert_eq!(filename(format!("form-data{parameters}").as_bytes()), expected, "{parameters}");
        }
        assert_eq!(filename(b"form-data; filename=\"\xE9\"; filename*=utf-8''b"), "b");
        assert_eq!(filename(b"form-data; filename=\"\xE9\""), "");
    }
}

//! The key in a request's headers.

use axum::http::{HeaderMap, HeaderName, header};

/// Headers whose whole value is a key: of Azure's clients, and of Anthropic's.
const PLAIN: [HeaderName; 2] = [HeaderName::from_static("api-key"), HeaderName::from_static("x-api-key")];

/// The key that a client has sent: `Authorization: Bearer KEY`, in which the scheme may have any case (contract §1.2),
/// or else `api-key: KEY` or `x-api-key: KEY`. A value of `Authorization` without a scheme is a key too: nobody who has
/// forgotten it is to act without a key.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text(&header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ').unwrap_or(("bearer", value));
        (scheme.eq_ignore_ascii_case("bearer") && !key.eq_ignore_ascii_case("bearer")).then(|| key.trim())
    });
    bearer.or_else(|| PLAIN.iter().find_map(text)).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_has_several_spellings() {
        type Case = (&'static [(&'static str, &'static str)], Option<&'static str>);
        let cases: [Case; 11] = [
            (&[("authorization", "Bearer bw-1")], Some("bw-1")),
            (&[("authorization", "bearer bw-1")], Some("bw-1")),
            (&[("authorization", "BEARER   bw-1 ")], Some("bw-1")),
            (&[("api-key", "bw-1")], Some("bw-1")),
            (&[("x-api-key", "bw-1")], Some("bw-1")),
            (&[("authorization", "Bearer bw-1"), ("api-key", "bw-2")], Some("bw-1")),
            (&[("authorization", "Basic dXNlcjpwYXNz"), ("api-key", "bw-2")], Some("bw-2")),
            (&[("authorization", "bw-1")], Some("bw-1")),
            (&[("authorization", "Bearer ")], None),
            (&[("api-key", "")], None),
            (&[], None),
        ];
        for (headers, expected) in cases {
            let pairs =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            assert_eq!(key(&pairs.collect()), expected, "{headers:?}");
        }
    }
}

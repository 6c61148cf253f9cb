//! The headers in which hosted servers state their limits in time.
//!
//! <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>: `x-ratelimit-limit-requests`,
//! `x-ratelimit-remaining-requests`, `x-ratelimit-reset-requests`, and the same for tokens. The reset is a time such as
//! `6m0s`, `7.66s` or `20ms`; a bare number is seconds.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};

use crate::domain::rate_limits::{RateLimit, RateLimits};

const fn names(limit: &'static str, remaining: &'static str, reset: &'static str) -> [HeaderName; 3] {
    [HeaderName::from_static(limit), HeaderName::from_static(remaining), HeaderName::from_static(reset)]
}

static REQUESTS: [HeaderName; 3] =
    names("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
static TOKENS: [HeaderName; 3] =
    names("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");

/// A longer reset is one that this program does not understand.
const LONGEST_RESET: f64 = 86_400.0;

/// The limits that the headers of an answer state.
#[must_use]
pub fn rate_limits(headers: &HeaderMap) -> RateLimits {
    RateLimits { requests: limit(headers, &REQUESTS), tokens: limit(headers, &TOKENS) }
}

fn limit(headers: &HeaderMap, [limit, remaining, reset]: &[HeaderName; 3]) -> Option<RateLimit> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let limit = text(limit)?.trim().parse().ok().filter(|limit| *limit > 0)?;
    let remaining = text(remaining)?.trim().parse().ok()?;
    let reset = text(reset).and_then(seconds).unwrap_or_default();
    Some(RateLimit { limit, remaining, reset })
}

/// A time as Go writes it: numbers with units.
fn seconds(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text.trim(), 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        rest = &rest[letters..];
        sum += number * unit;
    }
    (sum <= LONGEST_RESET).then(|| Duration::from_secs_f64(sum))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn a_reset_is_a_time() {
        let cases = [
            ("1s", Some(1_000)),
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("7.66s", Some(7_660)),
            ("1h2m3.5s", Some(3_723_500)),
            (" 12 ", Some(12_000)),
            ("0s", Some(0)),
            ("", Some(0)),
            ("1700000000", None),
            ("2026-01-01T00:00:00Z", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("ms", None),
            ("5µs", None),
        ];
        for (text, millis) in cases {
            assert_eq!(seconds(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn the_headers_of_an_answer_are_read_as_far_as_they_are_there() {
        let headers = |of: &str, texts: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (what, text) in texts {
                let name: HeaderName = format!("x-ratelimit-{what}-{of}").parse().expect("a name");
                headers.insert(name, HeaderValue::from_str(text).expect("a value"));
            }
            rate_limits(&headers)
        };
        let full = [("limit", "60000"), ("remaining", "0"), ("reset", "6m0s")];
        let expected = RateLimit { limit: 60_000, remaining: 0, reset: Duration::from_secs(360) };

        assert_eq!(headers("tokens", &full), RateLimits { requests: None, tokens: Some(expected) });
        assert_eq!(headers("requests", &full).requests, Some(expected));
        assert_eq!(headers("tokens", &full[..2]).tokens, Some(RateLimit { reset: Duration::ZERO, ..expected }));
        for texts in
            [&full[..1], &full[1..], &[("limit", "0"), ("remaining", "0")], &[("limit", "x"), ("remaining", "1")]]
        {
            assert!(headers("tokens", texts).is_none(), "{texts:?}");
        }
    }
}

//! How long a server asks callers to stay away.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};

use crate::domain::time::{Clock, Timestamp};

static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// No caller waits longer than this on a server's word.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long an answer asks to wait: `retry-after-ms`, or else `Retry-After` in seconds or as an HTTP date (RFC 9110,
/// section 10.2.3).
#[must_use]
pub fn retry_after(headers: &HeaderMap, clock: &Clock) -> Option<Duration> {
    let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
    let (millis, header) = (text(&RETRY_AFTER_MS), text(&RETRY_AFTER));
    if millis.is_none() && header.is_none() {
        return None;
    }
    read(millis, header, clock.now())
}

fn read(millis: Option<&str>, header: Option<&str>, now: Timestamp) -> Option<Duration> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    let asked = match (millis.and_then(number), header) {
        (Some(millis), _) => Duration::try_from_secs_f64(millis / 1000.0).unwrap_or(LONGEST),
        (None, Some(text)) => match number(text) {
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST),
            None => until(text, now)?,
        },
        (None, None) => return None,
    };
    Some(asked.min(LONGEST))
}

fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp(i64::try_from(since_epoch.as_millis()).ok()?).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_header_is_read() {
        let now = Timestamp(784_111_777_000);
        let cases = [
            (None, None, None),
            (None, Some("2"), Some(Duration::from_secs(2))),
            (None, Some("0.5"), Some(Duration::from_millis(500))),
            (Some("250"), Some("2"), Some(Duration::from_millis(250))),
            (None, Some("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10))),
            (None, Some("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO)),
            (None, Some("1e300"), Some(LONGEST)),
            (None, Some("-1"), None),
            (None, Some("soon"), None),
        ];
        for (millis, header, expected) in cases {
            assert_eq!(read(millis, header, now), expected, "{millis:?} {header:?}");
        }
    }
}

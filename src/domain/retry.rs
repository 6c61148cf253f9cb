//! Whether and when a failed request is retried.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::{FailureReason, HttpResponse};
use super::request::{Failed, Request};
use super::time::Timestamp;

/// Whether a response is retried, by its status.
pub type ShouldRetry = Arc<dyn Fn(&HttpResponse) -> bool + Send + Sync>;

/// Whether a status is temporary, so that the same request may succeed later.
#[must_use]
pub fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// The rule for retries: exponential backoff with full jitter, never earlier than the upstream's `Retry-After`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub max_retries: u32,
    /// The longest wait before the first retry; it doubles with each further one.
    pub base_delay: Duration,
    /// The upper bound of the doubled wait.
    pub max_delay: Duration,
}

/// What to do with a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again, not before this time.
    RetryAt(Timestamp),
    /// Write its error line.
    Fail,
}

impl RetryPolicy {
    /// Judges a failed request. `jitter` is drawn evenly from 0 to 1.
    #[must_use]
    pub fn judge(&self, request: &Request<Failed>, now: Timestamp, jitter: f64) -> Verdict {
        let reason = &request.state.reason;
        if !reason.is_retriable() || request.attempt >= self.max_retries {
            return Verdict::Fail;
        }
        Verdict::RetryAt(now.plus(self.delay(request.attempt, reason, jitter)))
    }

    fn delay(&self, attempt: u32, reason: &FailureReason, jitter: f64) -> Duration {
        let doubled = self.base_delay.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
        let spread = doubled.min(self.max_delay).mul_f64(jitter.clamp(0.0, 1.0));
        // Jitter on top of `Retry-After`, so that all rows that were turned away do not come back at once.
        reason.retry_after().map_or(spread, |asked| asked + spread)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::request::tests::{claimed, pending};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn policy() -> RetryPolicy {
        RetryPolicy { max_retries: 3, base_delay: Duration::from_secs(1), max_delay: Duration::from_secs(3) }
    }

    fn too_many(retry_after: Option<Duration>) -> FailureReason {
        FailureReason::RetriableHttpStatus(HttpResponse {
            status: 429,
            request_id: None,
            retry_after,
            body: Bytes::new(),
        })
    }

    fn judged(attempt: u32, reason: FailureReason, jitter: f64) -> Verdict {
        let mut request = pending();
        request.attempt = attempt;
        let failed = request.claim(claimed()).process(NOW).fail(reason);
        policy().judge(&failed, NOW, jitter)
    }

    #[test]
    fn delays_double_up_to_the_bound_and_are_spread() {
        let after = |millis| Verdict::RetryAt(Timestamp(NOW.0 + millis));
        let cases = [
            (0, 1.0, after(1000)),
            (0, 0.25, after(250)),
            (0, 0.0, after(0)),
            (1, 1.0, after(2000)),
            (2, 1.0, after(3000)),
            (3, 1.0, Verdict::Fail),
        ];
        for (attempt, jitter, expected) in cases {
            assert_eq!(judged(attempt, FailureReason::Network("gone".into()), jitter), expected, "attempt {attempt}");
        }
    }

    #[test]
    fn an_upstream_is_left_alone_as_long_as_it_asked() {
        let verdict = judged(0, too_many(Some(Duration::from_secs(40))), 0.5);

        assert_eq!(verdict, Verdict::RetryAt(Timestamp(NOW.0 + 40_500)));
    }

    #[test]
    fn what_cannot_change_is_not_tried_again() {
        let reasons = [
            FailureReason::InvalidAnswer(String::new()),
            FailureReason::InvalidRow(String::new()),
            FailureReason::Processor(String::new()),
        ];
        for reason in reasons {
            assert_eq!(judged(0, reason, 1.0), Verdict::Fail);
        }
    }
}

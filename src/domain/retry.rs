//! Whether and when a failed request is retried.

use std::sync::Arc;
use std::time::Duration;

use super::outcome::{FailureReason, HttpResponse, Remedy};
use super::request::{Failed, Request};
use super::time::Timestamp;

/// Whether a response is retried, by its status.
pub type ShouldRetry = Arc<dyn Fn(&HttpResponse) -> bool + Send + Sync>;

/// Whether a status is temporary, so that the same request may succeed later. A server that has not implemented a
/// function (501), or does not speak this version of HTTP (505), will not have learnt it then.
#[must_use]
pub fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599) && !matches!(status, 501 | 505)
}

/// The longest pause of a request that is parked for the first time in a series. The pause doubles with each further
/// time.
const FIRST_PARK: Duration = Duration::from_secs(1);
/// The bound of that pause: how long after the end of an outage its last row goes on.
const LONGEST_PARK: Duration = Duration::from_mins(1);
/// The same for an upstream that is not reached: its end is noticed by other rows' calls.
const LONGEST_PARK_OF_OUTAGE: Duration = Duration::from_secs(4);

/// The rule for retries: exponential backoff with jitter, never earlier than the upstream's `Retry-After`.
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
    /// Try again, not before `at`. That is one attempt more.
    Retry {
        /// When the next attempt is due.
        at: Timestamp,
    },
    /// Try again, not before `until`, and count no attempt: something is away that the request does not cause. Only the
    /// end of the batch's window, or its cancellation, ends the series.
    Park {
        /// When the request is due again.
        until: Timestamp,
    },
    /// Queue it again as it was: no call was made for it. The upstream's state says when it may begin.
    Requeue,
    /// Write its error line.
    Fail,
}

impl RetryPolicy {
    /// Judges a failed request. `jitter` is drawn evenly from 0 to 1.
    #[must_use]
    pub fn judge(&self, request: &Request<Failed>, now: Timestamp, jitter: f64) -> Verdict {
        let reason = &request.state.reason;
        // On top of `Retry-After`, so that all rows that were turned away do not come back at once.
        let after = |pause| now.plus(reason.retry_after().unwrap_or_default() + pause);
        let jitter = jitter.clamp(0.0, 1.0);
        match reason.remedy() {
            Remedy::Wait if matches!(reason, FailureReason::HeldBack(_)) => Verdict::Requeue,
            Remedy::Wait => Verdict::Park { until: after(park_pause(reason, request.parks, jitter)) },
            Remedy::Attempt if request.attempt < self.max_retries => {
                let longest = doubled(self.base_delay, request.attempt).min(self.max_delay);
                Verdict::Retry { at: after(longest.mul_f64(jitter)) }
            }
            Remedy::Attempt | Remedy::Nothing => Verdict::Fail,
        }
    }
}

/// How long a request waits that was parked so many times in a row before: a second, and twice as long each time, up to
/// a bound. The first time, an upstream's own state says when rows may begin, so there is no pause. `jitter` is drawn
/// evenly from 0 to 1.
#[must_use]
pub fn park_pause(reason: &FailureReason, parks: u32, jitter: f64) -> Duration {
    use FailureReason::{HeldBack, UpstreamUnavailable, UpstreamUnreachable};
    if parks == 0 && matches!(reason, HeldBack(_) | UpstreamUnavailable(_) | UpstreamUnreachable(_)) {
        return Duration::ZERO;
    }
    let bound = if matches!(reason, UpstreamUnreachable(_)) { LONGEST_PARK_OF_OUTAGE } else { LONGEST_PARK };
    // At least half, so that a row whose pause is drawn short does not try again at once, and again.
    doubled(FIRST_PARK, parks).min(bound).mul_f64(0.5 + jitter / 2.0)
}

fn doubled(delay: Duration, times: u32) -> Duration {
    delay.saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::tests::{claimed, pending};

    const NOW: Timestamp = Timestamp(1_000_000);

    fn policy() -> RetryPolicy {
        RetryPolicy { max_retries: 3, base_delay: Duration::from_secs(1), max_delay: Duration::from_secs(3) }
    }

    fn too_many(retry_after: Option<Duration>) -> FailureReason {
        FailureReason::RetriableHttpStatus(HttpResponse { status: 429, retry_after, ..HttpResponse::default() })
    }

    fn judged(attempt: u32, reason: FailureReason, jitter: f64) -> Verdict {
        let mut request = pending();
        request.attempt = attempt;
        let failed = request.claim(claimed()).process(NOW).fail(reason);
        policy().judge(&failed, NOW, jitter)
    }

    #[test]
    fn delays_double_up_to_the_bound_and_are_spread() {
        let after = |millis| Verdict::Retry { at: Timestamp(NOW.0 + millis) };
        let cases = [
            (0, 1.0, after(1000)),
            (0, 0.25, after(250)),
            (0, 0.0, after(0)),
            (1, 1.0, after(2000)),
            (2, 1.0, after(3000)),
            (3, 1.0, Verdict::Fail),
        ];
        for (attempt, jitter, expected) in cases {
            assert_eq!(
                judged(attempt, FailureReason::AnswerAborted("gone".into()), jitter),
                expected,
                "attempt {attempt}"
            );
        }
    }

    #[test]
    fn an_upstream_is_left_alone_as_long_as_it_asked() {
        let verdict = judged(0, too_many(Some(Duration::from_secs(40))), 0.5);

        assert_eq!(verdict, Verdict::Retry { at: Timestamp(NOW.0 + 40_500) });
    }

    #[test]
    fn each_cause_has_its_code_and_what_it_costs() {
        let text = String::new;
        let answer = || too_many(None);
        let FailureReason::RetriableHttpStatus(response) = answer() else { unreachable!("it was made as one") };
        // The code; the verdict before the first retry and after the last, if the jitter is greatest.
        let (retried, parked, failed) = ([Some(1), None], [Some(0), Some(0)], [None, None]);
        let cases = [
            (answer(), "http_status", retried),
            (FailureReason::UpstreamUnreachable(text()), "upstream_unreachable", parked),
            (FailureReason::UpstreamUnavailable(text()), "upstream_unavailable", parked),
            (FailureReason::HeldBack(text()), "upstream_unavailable", parked),
            (FailureReason::UpstreamTimeout(text()), "request_timeout", retried),
            (FailureReason::AnswerAborted(text()), "upstream_answer_aborted", retried),
            (FailureReason::ToolServerUnreachable(text()), "tool_server_unreachable", retried),
            (FailureReason::FileUnreachable(text()), "file_unreachable", retried),
            (FailureReason::StorageUnavailable(text()), "storage_unavailable", parked),
            (FailureReason::StorageFault(text()), "storage_error", failed),
            (FailureReason::NonRetriableHttpStatus(response.clone()), "http_status", failed),
            (FailureReason::UnreadableAnswer(response.clone()), "invalid_upstream_answer", retried),
            (FailureReason::InvalidAnswer(text()), "invalid_upstream_answer", failed),
            (FailureReason::InvalidRow(text()), "invalid_row", failed),
            (FailureReason::Unsupported(text()), "unsupported", failed),
            (FailureReason::SchemaInvalid(response.into(), text()), "schema_invalid", failed),
            (FailureReason::Processor(text()), "processor_error", failed),
            (FailureReason::WorkerDied(3), "worker_died", failed),
        ];
        let mut codes: Vec<&str> = cases.iter().map(|(_, code, _)| *code).collect();
        for (reason, code, attempts_counted) in cases {
            let verdicts = [0, policy().max_retries].map(|attempt| judged(attempt, reason.clone(), 1.0));

            let counted = verdicts.map(|verdict| match verdict {
                Verdict::Retry { .. } => Some(1),
                Verdict::Park { .. } | Verdict::Requeue => Some(0),
                Verdict::Fail => None,
            });
            assert_eq!((reason.code(), counted), (code, attempts_counted), "{reason:?}");
        }
        codes.sort_unstable();
        codes.dedup();
        let mut all = FailureReason::CODES.to_vec();
        all.sort_unstable();
        assert_eq!(codes, all, "every code has a case");
    }

    #[test]
    fn pauses_of_a_parked_request_double_from_a_second_up_to_a_minute_and_are_spread() {
        let cases = [(0, 500, 1000), (1, 1000, 2000), (5, 16_000, 32_000), (6, 30_000, 60_000), (40, 30_000, 60_000)];
        for (parks, least, most) in cases {
            let mut request = pending();
            request.parks = parks;
            let away = FailureReason::StorageUnavailable(String::new());
            let failed = request.claim(claimed()).process(NOW).fail(away);

            let paused = [0.0, 1.0].map(|jitter| policy().judge(&failed, NOW, jitter));

            assert_eq!(
                paused,
                [least, most].map(|millis| Verdict::Park { until: Timestamp(NOW.0 + millis) }),
                "{parks}"
            );
        }
    }
}

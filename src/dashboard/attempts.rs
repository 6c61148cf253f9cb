//! The attempts of a row, on its page: how many there were, and a line for each that is kept.

use bytes::Bytes;

use super::view::{Moment, plural, took};
use crate::domain::attempts::{AttemptFailure, AttemptOutcome, RowAttempt, RowAttempts};
use crate::domain::outcome::FailureReason;
use crate::domain::response::Step;
use crate::domain::result::{RecordedFailure, RequestStatus};

/// One attempt.
pub(super) struct AttemptLine {
    /// Its number, unless it does not count.
    pub(super) no: String,
    pub(super) began: Moment,
    pub(super) took: String,
    pub(super) upstream: String,
    /// How it ended, in a word.
    pub(super) state: &'static str,
    /// The status and the code of what failed, and how often.
    pub(super) why: String,
    pub(super) message: String,
}

impl AttemptLine {
    /// Those that are kept, in their order.
    pub(super) fn all(attempts: &RowAttempts) -> Vec<Self> {
        attempts.numbered().map(|(no, attempt)| Self::of(no, attempt)).collect()
    }

    fn of(no: Option<u32>, attempt: &RowAttempt) -> Self {
        let (state, failure, times) = match &attempt.outcome {
            AttemptOutcome::Completed => ("completed", None, 1),
            AttemptOutcome::Failed(failure) => ("failed", Some(failure), 1),
            AttemptOutcome::Waited { times, reason } => ("waited", Some(reason), *times),
        };
        let why = failure.map(kind).unwrap_or_default();
        Self {
            no: no.map_or_else(|| "–".to_owned(), |no| no.to_string()),
            began: Moment::at(attempt.started_at),
            took: took(attempt.ended_at.since(attempt.started_at)),
            upstream: attempt.upstream.clone().unwrap_or_else(|| "–".to_owned()),
            state,
            why: if times > 1 { format!("{why}, the last of {times} times") } else { why },
            message: failure.map(|failure| failure.message.clone()).unwrap_or_default(),
        }
    }
}

/// `503 http_status`
fn kind(failure: &AttemptFailure) -> String {
    let code = &failure.kind.code;
    failure.kind.status.map_or_else(|| code.clone(), |status| format!("{status} {code}"))
}

/// How many attempts a row had, in words. `stands`: its state and its result line, as far as they are known.
/// `are_kept`: its batch ended so lately, if it did, that its attempts are not forgotten.
pub(super) fn said_of(
    attempts: Option<&RowAttempts>,
    steps: &[Step],
    stands: Option<&(RequestStatus, Option<Bytes>)>,
    are_kept: bool,
) -> String {
    let calls: u32 = steps.iter().map(|step| step.attempts).sum();
    let with_calls = |said: String| match calls {
        0 => said,
        calls => format!("{said}, {calls} call{}", plural(calls.into())),
    };
    if let Some(attempts) = attempts {
        return with_calls(of_kept(attempts));
    }
    match stands {
        Some((RequestStatus::Pending | RequestStatus::InProgress, _)) => {
            with_calls("known once the row has its result".to_owned())
        }
        Some((RequestStatus::Cancelled | RequestStatus::Expired, _)) => {
            with_calls("none that gave a result".to_owned())
        }
        Some((RequestStatus::Failed, Some(line))) if is_poison(line) => {
            "not known: each ended with the death of its worker".to_owned()
        }
        Some((_, Some(_))) if are_kept => with_calls("1 attempt".to_owned()),
        Some((_, Some(_))) => "not kept any more".to_owned(),
        Some((_, None)) => "none".to_owned(),
        None => "not known".to_owned(),
    }
}

fn of_kept(attempts: &RowAttempts) -> String {
    let count = attempts.count;
    let shown = attempts.numbered().filter(|(no, _)| no.is_some()).count();
    let said = format!("{count} attempt{}", plural(count.into()));
    if shown < count as usize { format!("{said}, of which the last {shown} are shown") } else { said }
}

/// Whether a row failed because its worker died whenever it ran.
fn is_poison(line: &[u8]) -> bool {
    let code = FailureReason::WorkerDied(0).code();
    RecordedFailure::read(line).is_some_and(|failure| failure.codes.first().is_some_and(|own| own == code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{BatchId, RequestId};
    use crate::domain::line;
    use crate::domain::time::Timestamp;

    fn attempt(outcome: AttemptOutcome) -> RowAttempt {
        RowAttempt { started_at: Timestamp(0), ended_at: Timestamp(1500), upstream: Some("gpu-1".to_owned()), outcome }
    }

    fn why() -> AttemptFailure {
        AttemptFailure::new(&FailureReason::UpstreamTimeout("It had 10 s.".to_owned()))
    }

    /// So many attempts that failed, and one that did not.
    fn attempts(failed: u32) -> RowAttempts {
        let mut attempts = RowAttempts::default();
        (0..failed).for_each(|_| attempts.add(attempt(AttemptOutcome::Failed(why()))));
        attempts.end(attempt(AttemptOutcome::Completed));
        attempts
    }

    #[test]
    fn what_is_not_kept_is_not_claimed() {
        let line = |reason: &FailureReason| line::failed(RequestId { batch: BatchId::new(), row: 0 }, "a", reason);
        let failed = Bytes::from(line(&FailureReason::InvalidRow("No.".to_owned())));
        let died = Bytes::from(line(&FailureReason::WorkerDied(3)));
        let cases = [
            (Some((RequestStatus::Completed, Some(failed.clone()))), true, "1 attempt"),
            (Some((RequestStatus::Failed, Some(failed.clone()))), true, "1 attempt"),
            (Some((RequestStatus::Completed, Some(failed))), false, "not kept any more"),
            (Some((RequestStatus::Failed, Some(died))), true, "not known: each ended with the death of its worker"),
            (Some((RequestStatus::Expired, Some(Bytes::new()))), true, "none that gave a result"),
            (Some((RequestStatus::InProgress, None)), true, "known once the row has its result"),
            (Some((RequestStatus::Failed, None)), true, "none"),
            (None, true, "not known"),
        ];
        for (stands, are_kept, expected) in cases {
            assert_eq!(said_of(None, &[], stands.as_ref(), are_kept), expected, "{stands:?}");
        }
    }

    #[test]
    fn attempts_are_counted_although_few_are_shown() {
        assert_eq!(said_of(Some(&attempts(2)), &[], None, true), "3 attempts");
        assert_eq!(said_of(Some(&attempts(20)), &[], None, true), "21 attempts, of which the last 9 are shown");
    }

    #[test]
    fn waits_have_no_number_and_say_how_often() {
        let mut attempts = attempts(1);
        attempts.last.insert(1, attempt(AttemptOutcome::Waited { times: 7, reason: why() }));

        let lines = AttemptLine::all(&attempts);

        let shown: Vec<_> = lines.iter().map(|line| (&*line.no, line.state, &*line.why)).collect();
        assert_eq!(
            shown,
            [
                ("1", "failed", "request_timeout"),
                ("–", "waited", "request_timeout, the last of 7 times"),
                ("2", "completed", ""),
            ]
        );
        assert_eq!((&*lines[0].took, &*lines[0].upstream, &*lines[0].message), ("1500 ms", "gpu-1", "It had 10 s."));
    }
}

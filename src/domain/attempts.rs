//! The attempts of a row: what is kept of them when the first did not complete it.

use serde::{Deserialize, Serialize};

use super::failures::{FailureKind, RowFailure};
use super::outcome::FailureReason;
use super::time::Timestamp;

/// Attempts that are kept before the one that ended the row, so that a row which is tried for a day stays small.
const KEPT: usize = 8;

/// The attempts of a row that was tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowAttempts {
    /// How many attempts there were in all. Those after which the row only waited are not counted.
    pub count: u32,
    /// The last of them in their order: at most eight, and the one that ended the row.
    pub last: Vec<RowAttempt>,
}

/// One attempt of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowAttempt {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// The name of the server that its last call went to; `None` if it made no call, or that is not known.
    pub upstream: Option<String>,
    /// How it ended.
    pub outcome: AttemptOutcome,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// With the row's answer.
    Completed,
    /// It failed.
    Failed(AttemptFailure),
    /// It failed and was not charged: the row waited for something that was away. Of such attempts that follow each
    /// other, the last is kept.
    Waited {
        /// How many of them there were.
        times: u32,
        /// For what the row waited.
        reason: AttemptFailure,
    },
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// The code and the status, as the failures of a batch are counted by.
    #[serde(flatten)]
    pub kind: FailureKind,
    /// The message, of at most 300 characters.
    pub message: String,
}

impl AttemptFailure {
    /// What is kept of a reason.
    #[must_use]
    pub fn new(reason: &FailureReason) -> Self {
        let RowFailure { kind, sample } = RowFailure::new("", reason);
        Self { kind, message: sample.message }
    }
}

impl RowAttempts {
    /// Adds an attempt after which the row is tried again.
    pub fn add(&mut self, mut attempt: RowAttempt) {
        match (&mut attempt.outcome, self.last.last().map(|last| &last.outcome)) {
            (AttemptOutcome::Waited { times, .. }, Some(AttemptOutcome::Waited { times: before, .. })) => {
                *times = times.saturating_add(*before);
                self.last.pop();
            }
            (AttemptOutcome::Waited { .. }, _) => {}
            _ => self.count = self.count.saturating_add(1),
        }
        if self.last.len() == KEPT {
            self.last.remove(0);
        }
        self.last.push(attempt);
    }

    /// Adds the attempt that ended the row.
    pub fn end(&mut self, attempt: RowAttempt) {
        self.count = self.count.saturating_add(1);
        self.last.push(attempt);
    }

    /// The attempts that are kept, the last one last, each with its number, from 1. One that is not counted has none.
    pub fn numbered(&self) -> impl Iterator<Item = (Option<u32>, &RowAttempt)> {
        let is_counted = |attempt: &RowAttempt| !matches!(attempt.outcome, AttemptOutcome::Waited { .. });
        let kept = self.last.iter().filter(|attempt| is_counted(attempt)).count();
        let mut no = self.count.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX));
        self.last.iter().map(move |attempt| {
            no += u32::from(is_counted(attempt));
            (is_counted(attempt).then_some(no), attempt)
        })
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |attempt: &RowAttempt| match &attempt.outcome {
            AttemptOutcome::Completed => 0,
            AttemptOutcome::Failed(why) | AttemptOutcome::Waited { reason: why, .. } => why.message.len(),
        };
        self.last.iter().map(|attempt| size_of::<RowAttempt>() + text(attempt)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at: i64, outcome: AttemptOutcome) -> RowAttempt {
        RowAttempt { started_at: Timestamp(at), ended_at: Timestamp(at + 1), upstream: None, outcome }
    }

    fn why() -> AttemptFailure {
        AttemptFailure::new(&FailureReason::UpstreamTimeout("It had 10 s.".to_owned()))
    }

    fn failed(at: i64) -> RowAttempt {
        attempt(at, AttemptOutcome::Failed(why()))
    }

    fn waited(at: i64) -> RowAttempt {
        attempt(at, AttemptOutcome::Waited { times: 1, reason: why() })
    }

    /// The number of each attempt that is kept, and when it began.
    fn kept(attempts: &RowAttempts) -> Vec<(Option<u32>, i64)> {
        attempts.numbered().map(|(no, attempt)| (no, attempt.started_at.0)).collect()
    }

    #[test]
    fn the_last_attempts_are_kept_and_all_are_counted() {
        let mut attempts = RowAttempts::default();
        (0..100).for_each(|at| attempts.add(failed(at)));
        assert_eq!((attempts.count, attempts.last.len()), (100, KEPT));

        attempts.end(attempt(100, AttemptOutcome::Completed));

        assert_eq!(attempts.count, 101);
        assert_eq!(kept(&attempts), (92..=100).map(|at| (u32::try_from(at + 1).ok(), at)).collect::<Vec<_>>());
        assert!(attempts.bytes() > 8 * why().message.len(), "{}", attempts.bytes());
    }

    #[test]
    fn waits_that_follow_each_other_are_one_and_have_no_number() {
        let mut attempts = RowAttempts::default();
        attempts.add(failed(0));
        (1..1000).for_each(|at| attempts.add(waited(at)));
        attempts.add(failed(1000));
        attempts.add(waited(1001));
        attempts.end(attempt(1002, AttemptOutcome::Completed));

        assert_eq!(attempts.count, 3);
        assert_eq!(kept(&attempts), [(Some(1), 0), (None, 999), (Some(2), 1000), (None, 1001), (Some(3), 1002)]);
        let times = attempts.last.iter().filter_map(|attempt| match attempt.outcome {
            AttemptOutcome::Waited { times, .. } => Some(times),
            _ => None,
        });
        assert_eq!(times.collect::<Vec<_>>(), [999, 1]);
    }
}

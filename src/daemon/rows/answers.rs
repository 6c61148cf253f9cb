//! Whether a model answers, as far as its calls show it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use crate::domain::time::Timestamp;

/// So many times its usual time without any answer, a model counts as one that does not answer.
const USUAL_TIMES: i64 = 10;
/// A model that is silent for less is not suspected, however fast it usually is.
const MIN_SILENCE: i64 = 30_000;

/// What the calls of one model came to. Every row reads it; a row writes only what it changes.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// Whether the last call that ended had an answer, of any status.
    has_answered: AtomicBool,
    /// When an answer came last, or when the model's first row began since none was under way. In milliseconds since
    /// the Unix epoch.
    silent_since: AtomicI64,
    /// About how long an answer takes, in milliseconds.
    usual: AtomicI64,
}

impl Answers {
    /// Whether the model answers. One that has rows `under_way` does not if it has been silent for far longer than
    /// usual.
    pub(super) fn come(&self, under_way: bool, now: Timestamp) -> bool {
        let most = USUAL_TIMES.saturating_mul(self.usual.load(Relaxed)).max(MIN_SILENCE);
        let is_silent = under_way && now.0.saturating_sub(self.silent_since.load(Relaxed)) > most;
        self.has_answered.load(Relaxed) && !is_silent
    }

    /// Whether the last call that ended had an answer.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Relaxed)
    }

    /// Notes whether a call had an answer.
    pub(super) fn note(&self, has_answered: bool) {
        self.has_answered.store(has_answered, Relaxed);
    }

    /// Notes when an answer came, and how long it took.
    pub(super) fn came(&self, at: Timestamp, took: Duration) {
        self.wait_from(at);
        let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let usual = self.usual.load(Relaxed);
        let change = took.saturating_sub(usual) / 8;
        if change != 0 {
            self.usual.store(usual.saturating_add(change), Relaxed);
        }
    }

    /// Counts the silence from `at` on.
    pub(super) fn wait_from(&self, at: Timestamp) {
        if self.silent_since.load(Relaxed) != at.0 {
            self.silent_since.store(at.0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_silent_for_far_longer_than_usual_does_not_answer() {
        let answers = Answers::default();
        let at = |seconds: i64| Timestamp(seconds * 1000);
        assert!(!answers.come(false, at(0)), "nothing is known");

        answers.note(true);
        for answer in 0..100 {
            answers.came(at(answer), Duration::from_secs(8));
        }

        assert!(answers.come(true, at(99 + 70)), "its answers take about eight seconds");
        assert!(!answers.come(true, at(99 + 81)));
        assert!(answers.come(false, at(99 + 81)), "it was not called");
        answers.wait_from(at(99 + 81));
        assert!(answers.come(true, at(99 + 82)), "it is called again");
    }

    #[test]
    fn a_model_that_is_fast_may_be_slow_once() {
        let answers = Answers::default();
        answers.note(true);
        answers.came(Timestamp(0), Duration::from_millis(10));

        assert!(answers.come(true, Timestamp(MIN_SILENCE)));
        assert!(!answers.come(true, Timestamp(MIN_SILENCE + 1)));
    }
}

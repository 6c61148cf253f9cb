//! One round of measurement: what the answers to calls of one limit say about the server.
//!
//! The fit is `time of a call = wait + pace x output tokens`, weighted by `1 / time`, so that long answers do not
//! dominate. By Little's law, `in flight x wait / time` calls wait in the server, and `in flight / time` is the
//! throughput. Answers without output tokens are left out of the fit. If they are the majority, the round has no fit,
//! and the mean time of a call gives the throughput.

use std::time::Duration;

use super::AnsweredCall;

/// A round has at least this many answers.
const LEAST_ANSWERS: f64 = 16.0;
/// Lengths that vary by less than this share of their mean square tell nothing about the wait.
const LEAST_SPREAD: f64 = 0.02;
/// No call counts as shorter, so that a clock without progress divides nothing by zero.
const SHORTEST: f64 = 1e-6;
/// The limit is in use if this share of a round's calls was sent with almost all of the limit in flight, and the mean
/// in flight was this share of the limit. Clients that refill in bursts have less than the limit in flight on average.
const SHARE_SENT_AT_LIMIT: f64 = 0.25;
const MEAN_IN_USE: f64 = 0.6;
const ALMOST_ALL: f64 = 0.9;

/// Sums over the answers of one round. Adding an answer takes constant time and no memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    /// Only calls sent since then belong to the round. None before the first answer, whose call began the round.
    since: Option<Duration>,
    /// The limit when the round began.
    limit: f64,
    answers: f64,
    sent_at_limit: f64,
    most_in_flight: usize,
    /// All answers: seconds, seconds squared, and calls in flight x seconds.
    seconds: f64,
    squared_seconds: f64,
    area: f64,
    /// Answers with output tokens: their number, tokens, and seconds.
    measured: f64,
    tokens: f64,
    measured_seconds: f64,
    /// Answers with output tokens, weighted by `1 / seconds`: weights, weights x tokens, weights x tokens squared.
    weight: f64,
    weighted_tokens: f64,
    weighted_squares: f64,
}

/// What one round says about the server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    /// The mean number of calls in flight.
    pub(super) in_flight: f64,
    /// Seconds of a call that do not depend on its output tokens. None if the answers do not show it.
    pub(super) wait: Option<f64>,
    /// Seconds for an output token, or for a call if [`Level::has_tokens`] is false.
    pace: f64,
    /// Whether most answers stated their output tokens.
    pub(super) has_tokens: bool,
    /// The mean seconds of a call.
    pub(super) seconds: f64,
    /// The relative standard error of the mean seconds.
    pub(super) error: f64,
}

impl Round {
    /// The round of the first calls.
    pub(super) fn first(limit: f64) -> Self {
        Self { limit, ..Self::default() }
    }

    pub(super) fn starting_at(since: Duration, limit: f64) -> Self {
        Self { since: Some(since), ..Self::first(limit) }
    }

    /// Whether a call sent at this time belongs to the round.
    pub(super) fn includes(&self, sent: Duration) -> bool {
        self.since.is_none_or(|since| sent >= since)
    }

    pub(super) fn add(&mut self, now: Duration, call: &AnsweredCall) {
        let seconds = seconds_of(now, call);
        self.since.get_or_insert(call.sent);
        let in_flight = (count(call.in_flight_at_send) + count(call.in_flight) + 1.0) / 2.0;
        self.answers += 1.0;
        self.seconds += seconds;
        self.squared_seconds += seconds * seconds;
        self.area += in_flight * seconds;
        if count(call.in_flight_at_send) >= self.limit.floor() * ALMOST_ALL {
            self.sent_at_limit += 1.0;
        }
        self.most_in_flight = self.most_in_flight.max(call.in_flight_at_send);
        let Some(tokens) = call.output_tokens.map(tokens) else { return };
        let weight = 1.0 / seconds;
        self.measured += 1.0;
        self.tokens += tokens;
        self.measured_seconds += seconds;
        self.weight += weight;
        self.weighted_tokens += weight * tokens;
        self.weighted_squares += weight * tokens * tokens;
    }

    /// Whether the answers suffice: as many as the limit, so that long calls are among them.
    pub(super) fn is_complete(&self) -> bool {
        self.answers >= LEAST_ANSWERS.max(self.limit.floor())
    }

    /// Whether there were enough calls to use the limit. If not, the round says nothing about the limit.
    pub(super) fn used_limit(&self) -> bool {
        self.sent_at_limit >= self.answers * SHARE_SENT_AT_LIMIT
            && self.area >= self.seconds * self.limit.floor() * MEAN_IN_USE
    }

    /// Whether the calls in flight ever reached the limit at which the round began.
    pub(super) fn reached_limit(&self) -> bool {
        count(self.most_in_flight) >= self.limit.floor() * ALMOST_ALL
    }

    pub(super) fn level(&self) -> Level {
        let in_flight = self.area / self.seconds.max(SHORTEST);
        let seconds = self.seconds / self.answers.max(1.0);
        let base = Level { in_flight, wait: None, pace: seconds, has_tokens: false, seconds, error: self.error() };
        if self.measured * 2.0 < self.answers || self.tokens <= 0.0 {
            return base;
        }
        // The weighted sum of seconds is the number of answers, that of tokens x seconds the number of tokens.
        let square = self.weight * self.weighted_squares;
        let spread = square - self.weighted_tokens * self.weighted_tokens;
        if spread <= LEAST_SPREAD * square {
            return Level { pace: self.measured_seconds / self.tokens, has_tokens: true, ..base };
        }
        let wait = (self.measured * self.weighted_squares - self.weighted_tokens * self.tokens) / spread;
        let wait = wait.max(0.0);
        let pace = ((self.measured - wait * self.weight) / self.weighted_tokens).max(1e-9);
        Level { wait: Some(wait), pace, has_tokens: true, ..base }
    }

    /// The level of a round in which the calls in flight grew. Its first answers are the short ones, so that without a
    /// fit the throughput is that of the answers in the time of the round.
    pub(super) fn growing_level(&self, now: Duration) -> Level {
        let level = self.level();
        let elapsed = now.saturating_sub(self.since.unwrap_or(now)).as_secs_f64();
        if level.wait.is_some() || elapsed <= 0.0 {
            return level;
        }
        let seconds = level.in_flight * elapsed / self.answers.max(1.0);
        let tokens = if level.has_tokens { self.tokens / self.measured.max(1.0) } else { 1.0 };
        Level { pace: seconds / tokens, ..level }
    }

    /// The relative standard error of the mean seconds.
    fn error(&self) -> f64 {
        let answers = self.answers.max(1.0);
        let mean = (self.seconds / answers).max(SHORTEST);
        let variance = (self.squared_seconds / answers - mean * mean).max(0.0);
        (variance / answers).sqrt() / mean
    }
}

impl Level {
    /// The seconds of a call with so many output tokens.
    pub(super) fn seconds_of(&self, tokens: f64) -> f64 {
        let tokens = if self.has_tokens { tokens } else { 1.0 };
        (self.wait.unwrap_or(0.0) + self.pace * tokens).max(SHORTEST)
    }

    /// Calls a second, if each has so many output tokens.
    pub(super) fn throughput(&self, tokens: f64) -> f64 {
        self.in_flight / self.seconds_of(tokens)
    }
}

/// The seconds that a call took.
pub(super) fn seconds_of(now: Duration, call: &AnsweredCall) -> f64 {
    now.saturating_sub(call.sent).as_secs_f64().max(SHORTEST)
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
pub(super) fn count(calls: usize) -> f64 {
    calls as f64
}

#[expect(clippy::cast_precision_loss, reason = "answers have fewer tokens than a float has exact integers")]
pub(super) fn tokens(output_tokens: u64) -> f64 {
    output_tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(calls: impl Iterator<Item = (f64, Option<u64>)>) -> Level {
        let mut round = Round::default();
        for (seconds, output_tokens) in calls {
            let call = AnsweredCall { sent: Duration::ZERO, in_flight_at_send: 8, in_flight: 7, output_tokens };
            round.add(Duration::from_secs_f64(seconds), &call);
        }
        round.level()
    }

    #[test]
    fn the_fit_separates_the_wait_from_the_pace() {
        let level = round((1..=16_u32).map(|call| (3.0 + 0.01 * f64::from(call) * 50.0, Some(u64::from(call) * 50))));

        let wait = level.wait.unwrap();
        assert!((wait - 3.0).abs() < 1e-6, "{level:?}");
        assert!((level.seconds_of(100.0) - 4.0).abs() < 1e-6, "{level:?}");
        assert!((level.in_flight - 8.0).abs() < 1e-9, "{level:?}");
    }

    #[test]
    fn a_few_answers_without_tokens_change_nothing() {
        let with = |call: u32| (3.0 + 0.01 * f64::from(call) * 50.0, Some(u64::from(call) * 50));
        let few = (1..=16).map(with).chain([(0.5, None), (60.0, None)]);

        let wait = round(few).wait.unwrap();
        assert!((wait - 3.0).abs() < 1e-6);
    }

    #[test]
    fn without_tokens_the_throughput_is_that_of_calls() {
        let level = round((0..16).map(|_| (2.0, None)));
        assert_eq!(level.wait, None);
        assert!((level.throughput(100.0) - 4.0).abs() < 1e-9);

        let level = round((0..16).map(|_| (2.0, Some(0))));
        assert!((level.throughput(100.0) - 4.0).abs() < 1e-9);
    }
}

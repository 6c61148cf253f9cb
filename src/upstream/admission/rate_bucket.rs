//! A limit of requests or tokens in time, as the headers of answers state it: a bucket that fills with time and from
//! which each call takes its charge.
//!
//! An answer states what its server's bucket had when the call came. What the calls sent since have taken is added up:
//! one request each, or as many tokens as is learned from one answer to the next. Calls that are sent at about the
//! same time can reach the server in any order, so that an answer says nothing of those sent shortly before its own.

use std::time::Duration;

use crate::domain::rate_limits::RateLimit;

/// So much of the limit is left unused for charges that were guessed too low.
const SPARE: f64 = 0.01;
/// A reading changes the mean charge by this share.
const SHARE: f64 = 0.125;
/// Calls sent so long before another reach the server before it.
const SETTLED: Duration = Duration::from_millis(250);
/// A server that states no reset fills its bucket in a minute.
const USUAL_RESET: f64 = 60.0;

/// The part of a given limit that may be taken at once: ten seconds of a minute.
const GIVEN_BURST: f64 = 1.0 / 6.0;
/// The tokens of a call, before any answer.
const FIRST_TOKENS: f64 = 500.0;

/// What is known of one limit; nothing before an answer states it, unless the settings give it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RateBucket {
    last: Option<Reading>,
    /// The mean charge of a call.
    charge: f64,
    /// Whether every call has the same charge, so that there is nothing to learn.
    is_charge_known: bool,
    /// What is left at a time, as far as it is known. Never less than nothing, so that a charge that was guessed too
    /// high costs no more than the time in which the bucket fills.
    left: f64,
    at: Duration,
    /// Whether the settings gave the limit, and no answer has stated one.
    is_given: bool,
}

/// What an answer stated.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The call that was answered.
    call: SentCall,
    remaining: f64,
    most: f64,
    /// What comes back in a second.
    rate: f64,
}

/// A call among those that were sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentCall {
    pub(super) at: Duration,
    /// Which it was, counted from 1.
    pub(super) no: u64,
    /// How many of those before it have certainly reached the server before it.
    pub(super) settled: u64,
}

/// Counts the calls that are sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SentCalls {
    count: u64,
    /// Two times at least [`SETTLED`] apart, the latest last, and how many calls were sent before each.
    marks: [(Duration, u64); 2],
}

impl SentCalls {
    /// How many were sent.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// A further call is sent.
    pub(super) fn add(&mut self, at: Duration) -> SentCall {
        if at.saturating_sub(self.marks[1].0) >= SETTLED {
            self.marks = [self.marks[1], (at, self.count)];
        }
        self.count += 1;
        SentCall { at, no: self.count, settled: self.marks[0].1 }
    }
}

impl RateBucket {
    /// The bucket of requests: each call takes one.
    pub(super) fn of_requests() -> Self {
        Self { charge: 1.0, is_charge_known: true, ..Self::default() }
    }

    /// The bucket of tokens.
    pub(super) fn of_tokens() -> Self {
        Self::default()
    }

    /// The same with so many a minute, as the settings say, until an answer states a limit.
    pub(super) fn with(self, a_minute: u64) -> Self {
        let (rate, most) = (number(a_minute) / 60.0, number(a_minute) * GIVEN_BURST);
        let call = SentCall { at: Duration::ZERO, no: 0, settled: 0 };
        let last = Some(Reading { call, remaining: most, most, rate });
        let charge = if self.is_charge_known { self.charge } else { FIRST_TOKENS };
        Self { last, charge, left: most, is_given: true, ..self }
    }

    /// Notes what a call has really taken, if no answer states what is left.
    pub(super) fn used(&mut self, now: Duration, taken: u64) {
        if self.is_given && !self.is_charge_known {
            self.left = (self.left_at(now) + self.charge - number(taken)).max(0.0);
            self.at = now;
            self.charge += (number(taken) - self.charge) * SHARE;
        }
    }

    /// Notes that a call is sent.
    pub(super) fn sent(&mut self, now: Duration) {
        self.left = (self.left_at(now) - self.charge).max(0.0);
        self.at = now;
    }

    /// Notes what the answer to a call states, after `calls` were sent.
    pub(super) fn read(&mut self, now: Duration, call: SentCall, calls: u64, stated: RateLimit) {
        self.is_given = false;
        let RateLimit { limit, remaining, reset } = stated;
        let (most, remaining) = (number(limit), number(remaining.min(limit)));
        let reset = if reset.is_zero() { USUAL_RESET } else { reset.as_secs_f64().max(1.0) };
        let rate =
            if remaining < most && reset < USUAL_RESET { (most - remaining) / reset } else { most / USUAL_RESET };
        let (before, between) = match &self.last {
            Some(last) if call.no <= last.call.no => return,
            Some(last) => (last.filled(call.at), call.no - last.call.no),
            None => (most, call.no),
        };
        // A bucket that was full for a while shows less than what was taken from it.
        let charge = (before - remaining) / number(between);
        if charge > 0.0 && !self.is_charge_known {
            self.charge = if self.charge > 0.0 { self.charge + (charge - self.charge) * SHARE } else { charge };
        }
        let reading = Reading { call, remaining, most, rate };
        let taken_since = self.charge * number(calls.saturating_sub(call.settled + 1));
        self.left = (reading.filled(now) - taken_since).max(0.0);
        (self.last, self.at) = (Some(reading), now);
    }

    /// The time before which no call may be sent, if that is to come.
    pub(super) fn hold_until(&self, now: Duration) -> Option<Duration> {
        let last = self.last?;
        let needed = (self.charge + SPARE * last.most).min(last.most);
        let short = needed - self.left_at(now);
        (short > 0.0).then(|| now + Duration::from_secs_f64((short / last.rate).min(USUAL_RESET)))
    }

    fn left_at(&self, now: Duration) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        last.most.min(self.left + now.saturating_sub(self.at).as_secs_f64() * last.rate)
    }

    /// Whether there is nothing left for a call, by what the last answer stated.
    pub(super) fn is_empty(&self, now: Duration) -> bool {
        self.last.is_some_and(|last| last.filled(now) < self.charge.max(1.0))
    }
}

impl Reading {
    /// What there would be at a time without further calls.
    fn filled(&self, at: Duration) -> f64 {
        self.most.min(self.remaining + at.saturating_sub(self.call.at).as_secs_f64() * self.rate)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a limit is a guess beyond 15 digits")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stated(remaining: u64, reset: u64) -> RateLimit {
        RateLimit { limit: 6_000, remaining, reset: SECOND * u32::try_from(reset).expect("it is short") }
    }

    /// A call that was sent after all the others before it.
    fn call(at: Duration, no: u64) -> SentCall {
        SentCall { at, no, settled: no - 1 }
    }

    #[test]
    fn calls_wait_for_what_the_server_has_left() {
        let mut bucket = RateBucket::of_tokens();
        assert_eq!(bucket.hold_until(SECOND), None, "nothing is known");

        // Ten calls took 300 each, and 100 come back in a second.
        bucket.read(SECOND, call(SECOND, 10), 10, stated(3_000, 30));
        (0..8).for_each(|_| bucket.sent(SECOND));
        assert_eq!(bucket.hold_until(SECOND), None, "600 are left");
        bucket.sent(SECOND);
        let until = bucket.hold_until(SECOND).expect("300 are left, and 360 wanted");
        assert_eq!(until, SECOND + SECOND * 6 / 10);
        assert_eq!(bucket.hold_until(until), None);
    }

    #[test]
    fn calls_go_on_after_a_while_however_large_their_charge_seems() {
        let mut bucket = RateBucket::of_tokens();
        bucket.read(SECOND, SentCall { at: SECOND, no: 1, settled: 0 }, 16, stated(100, 60));

        let until = bucket.hold_until(SECOND).expect("there is little left");

        assert!(until <= SECOND * 61);
        assert!(bucket.hold_until(until).is_none());
    }

    #[test]
    fn a_given_limit_is_kept_and_gives_way_to_one_that_is_stated() {
        let mut requests = RateBucket::of_requests().with(60);
        let mut sent = 0;
        for tenths in 0..600 {
            let now = SECOND * tenths / 10;
            if requests.hold_until(now).is_none() {
                requests.sent(now);
                sent += 1;
            }
        }
        assert!((66..=70).contains(&sent), "{sent} in a minute, with ten seconds' worth at once");

        let mut tokens = RateBucket::of_tokens().with(6_000);
        for _ in 0..200 {
            tokens.used(SECOND, 50);
        }
        assert!((tokens.charge - 50.0).abs() < 0.1, "{}", tokens.charge);
        tokens.read(SECOND, call(SECOND, 10), 10, stated(0, 60));
        tokens.used(SECOND, 50);
        assert!(tokens.hold_until(SECOND).is_some(), "what is stated counts");
    }

    #[test]
    fn the_charge_follows_what_calls_take() {
        let mut bucket = RateBucket::of_tokens();
        bucket.read(SECOND, call(SECOND, 10), 10, stated(5_000, 10));
        assert!((bucket.charge - 100.0).abs() < 1e-9);
        for no in 11..100 {
            bucket.read(SECOND, call(SECOND, no), no, stated(5_000 - (no - 10) * 50, 10));
        }

        assert!((bucket.charge - 50.0).abs() < 0.1, "{}", bucket.charge);
    }

    #[test]
    fn an_answer_that_comes_late_is_no_news() {
        let mut bucket = RateBucket::of_tokens();
        bucket.read(SECOND, call(SECOND, 10), 10, stated(3_000, 30));
        bucket.read(SECOND, call(SECOND / 2, 9), 10, stated(0, 60));

        assert!(!bucket.is_empty(SECOND));
        bucket.read(SECOND * 2, call(SECOND * 2, 20), 20, stated(0, 60));
        assert!(bucket.is_empty(SECOND * 2));
        assert!(!bucket.is_empty(SECOND * 20), "it has filled since");
    }

    #[test]
    fn an_answer_says_nothing_of_calls_sent_shortly_before() {
        let (mut calls, mut bucket) = (SentCalls::default(), RateBucket::of_requests());
        let burst: Vec<_> = (0..16).map(|_| calls.add(SECOND)).collect();
        assert!(burst.iter().all(|call| call.settled == 0));
        let later = [2, 3, 4].map(|seconds| calls.add(SECOND * seconds).settled);
        assert_eq!(later, [0, 16, 17]);

        // The last of the burst came first.
        let twenty = RateLimit { limit: 20, remaining: 19, reset: SECOND };
        bucket.read(SECOND, burst[15], 16, twenty);
        assert!(bucket.hold_until(SECOND).is_none());
        bucket.read(SECOND, SentCall { no: 17, ..burst[15] }, 22, twenty);
        assert!(bucket.hold_until(SECOND).is_some(), "21 others may have been taken");
    }
}

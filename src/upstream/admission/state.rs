//! What a model's answers have shown of the server that it is called on. A pure state machine: times are those of any
//! clock that starts anywhere and only goes forward.

use std::time::Duration;

use super::breaker::{Breaker, BreakerChange, BreakerEpoch, LONGEST_PAUSE};
use super::concurrency::{AnsweredCall, ConcurrencyController, LimitReason};
use super::pace::CallPace;
use super::rate_bucket::{RateBucket, SentCall, SentCalls};
use crate::domain::rate_limits::RateLimits;

/// A wait that the server asks for is worth telling if so much of it is left.
const WORTH_TELLING: Duration = Duration::from_secs(10);

/// Whether a longer wait still holds is asked after so long, with one call, and then again and again: one row's answer
/// need not be true of all, nor for an hour.
pub(super) const LONG_WAIT: Duration = Duration::from_secs(60);

/// Limits in time count as such for so long after they have held a call back.
const LIMITED_FOR: Duration = Duration::from_secs(2);

/// Limits in time of one model's calls, as the settings give them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenRates {
    /// Calls in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens of requests and answers in a minute.
    pub tokens_per_minute: Option<u64>,
}

/// Whether calls of a model may begin, and how many at once.
#[derive(Debug)]
pub struct AdmissionState {
    breaker: Breaker,
    concurrency: ConcurrencyController,
    pace: CallPace,
    requests: RateBucket,
    tokens: RateBucket,
    /// No call begins before, but for the one that asks again: the latest `Retry-After`, and when it was said.
    wait_until: Duration,
    wait_said_at: Duration,
    /// When one call asks again whether the wait still holds.
    ask_again_at: Duration,
    in_flight: usize,
    sent: SentCalls,
    /// Whether a row was let through alone whose call has not been sent.
    is_one_on_its_way: bool,
    /// Until when the gate is shut, as whoever follows the time was told last.
    told: Option<Duration>,
    /// Why the server took no call the last time.
    reason: String,
    /// Since when the breaker is not closed.
    down_since: Option<Duration>,
    /// When a call was last held back by limits in time.
    limited_at: Option<Duration>,
}

/// Whether calls may begin, for those who wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStanding {
    /// They may.
    Open,
    /// The server limits calls in time: none begins before this, if it is known.
    Limited(Option<Duration>),
    /// The server is gone, or takes no row at all, since then.
    Down(Duration),
}

/// Whether rows may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Gate {
    /// They may.
    Open,
    /// One may: its call asks whether the server takes calls again.
    One,
    /// None may.
    Shut,
}

/// When a call was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    call: SentCall,
    /// Calls under way then, itself included.
    in_flight: usize,
    epoch: BreakerEpoch,
}

/// How a call ended, as far as it concerns the server.
#[derive(Debug, Clone, PartialEq)]
pub enum CallEnd {
    /// The server took the row and said something about it.
    Answered {
        /// Whether the answer has a status of 200 to 299.
        is_success: bool,
        /// The tokens that the server made for it, if the answer states them.
        output_tokens: Option<u64>,
        /// Those and the tokens of the request, if the answer states them.
        total_tokens: Option<u64>,
    },
    /// The server takes no further call now.
    Refused {
        /// The pause that the server asks for.
        retry_after: Option<Duration>,
        /// What it said.
        reason: String,
        /// Whether it has taken another row since the call was sent.
        has_taken_others: bool,
    },
    /// The server is not there, or takes no row at all.
    Unavailable {
        /// The pause that the server asks for.
        retry_after: Option<Duration>,
        /// Why.
        reason: String,
        /// The longest pause before the next call asks whether the server is back.
        longest_pause: Duration,
    },
    /// Nothing is known: it was given up.
    Abandoned,
}

impl AdmissionState {
    /// A state in which nothing is known. The controller never lets more calls begin than its ceiling.
    #[must_use]
    pub fn new(concurrency: ConcurrencyController) -> Self {
        Self {
            breaker: Breaker::default(),
            concurrency,
            pace: CallPace::default(),
            requests: RateBucket::of_requests(),
            tokens: RateBucket::of_tokens(),
            sent: SentCalls::default(),
            wait_until: Duration::ZERO,
            wait_said_at: Duration::ZERO,
            ask_again_at: Duration::ZERO,
            in_flight: 0,
            is_one_on_its_way: false,
            told: None,
            reason: String::new(),
            down_since: None,
            limited_at: None,
        }
    }

    /// The same with limits in time that the settings give. Answers that state limits are believed instead.
    #[must_use]
    pub fn with_rates(mut self, rates: GivenRates) -> Self {
        self.requests = rates.requests_per_minute.map_or(self.requests, |limit| self.requests.with(limit));
        self.tokens = rates.tokens_per_minute.map_or(self.tokens, |limit| self.tokens.with(limit));
        self
    }

    /// Changes the highest number of calls that may be under way.
    pub fn set_ceiling(&mut self, ceiling: usize) {
        self.concurrency.set_ceiling(ceiling);
    }

    /// Why a call that begins now is held back, if it is.
    #[must_use]
    pub fn held_back(&self, now: Duration) -> Option<&str> {
        (self.gate(now) == Gate::Shut).then_some(&*self.reason)
    }

    /// Whether rows may begin.
    #[must_use]
    pub fn gate(&self, now: Duration) -> Gate {
        self.gate_until(now, self.shut_until(now))
    }

    /// The same, if it is known until when none may.
    fn gate_until(&self, now: Duration, shut_until: Option<Duration>) -> Gate {
        let is_one_at_a_time = !self.breaker.is_closed() || self.pace.is_paced() || self.waits_until(now).is_some();
        match shut_until {
            Some(_) => Gate::Shut,
            None if is_one_at_a_time && self.is_one_on_its_way => Gate::Shut,
            None if is_one_at_a_time => Gate::One,
            None => Gate::Open,
        }
    }

    /// Until when no call may begin, unless something happens before.
    #[must_use]
    pub fn shut_until(&self, now: Duration) -> Option<Duration> {
        let wait = Some(self.wait_until.min(self.ask_again_at)).filter(|until| *until > now);
        let buckets = [&self.requests, &self.tokens].map(|bucket| bucket.hold_until(now));
        let others = [wait, self.breaker.hold_until(now), self.pace.hold_until(now)];
        others.into_iter().chain(buckets).flatten().max()
    }

    /// Until when the server asks to wait, if that is not over.
    fn waits_until(&self, now: Duration) -> Option<Duration> {
        Some(self.wait_until).filter(|until| *until > now)
    }

    /// Whether rows may begin, and whether the time of [`Self::shut_until`] is another one than when this was last
    /// asked.
    pub(super) fn look(&mut self, now: Duration) -> (Gate, bool) {
        let until = self.shut_until(now);
        let is_other_time = std::mem::replace(&mut self.told, until) != until;
        if until.is_some() {
            self.limited_at = Some(now);
        }
        (self.gate_until(now, until), is_other_time)
    }

    /// How many calls may be under way.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.concurrency.limit()
    }

    /// Why no more calls may be under way.
    #[must_use]
    pub fn limit_reason(&self) -> LimitReason {
        self.concurrency.reason()
    }

    /// Whether its calls are sent evenly.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.pace.is_paced()
    }

    /// Whether calls may begin. Limits in time that shut the gate for a moment, again and again, count all the while.
    #[must_use]
    pub fn standing(&self, now: Duration) -> CallStanding {
        let until = self.shut_until(now).max(self.waits_until(now));
        let was_limited = self.limited_at.is_some_and(|at| now.saturating_sub(at) < LIMITED_FOR);
        match self.down_since {
            Some(since) => CallStanding::Down(since),
            None if until.is_some() || was_limited || self.pace.is_paced() => CallStanding::Limited(until),
            None => CallStanding::Open,
        }
    }

    /// Why the server took no call the last time.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Why no call begins, if none does for a while.
    #[must_use]
    pub fn trouble(&self, now: Duration) -> Option<String> {
        let wait = self.wait_until.saturating_sub(now);
        if wait >= WORTH_TELLING {
            return Some(format!("{}; it asks to wait for {} s more", self.reason, wait.as_secs()));
        }
        (!self.breaker.is_closed()).then(|| self.reason.clone())
    }

    /// A row is let through alone, or the one that was has ended.
    pub fn set_one_on_its_way(&mut self, is_one: bool) {
        self.is_one_on_its_way = is_one;
    }

    /// Notes that the time is `now`.
    pub fn tick(&mut self, now: Duration) -> BreakerChange {
        let is_waiting = self.in_flight > 0 && self.breaker.is_closed();
        self.concurrency.tick(now, is_waiting);
        let change = self.breaker.tick(now);
        self.follow(now, change)
    }

    /// Notes how many calls wait in the server, as its own metrics say.
    pub fn note_waiting(&mut self, now: Duration, waiting: usize) {
        self.concurrency.note_waiting(now, waiting, self.in_flight);
    }

    /// Notes that a call is sent.
    pub fn sent(&mut self, now: Duration) -> Sent {
        self.in_flight += 1;
        self.is_one_on_its_way = false;
        self.ask_again_at = self.ask_again_at.max(now + LONG_WAIT);
        self.pace.sent(now);
        self.requests.sent(now);
        self.tokens.sent(now);
        Sent { call: self.sent.add(now), in_flight: self.in_flight, epoch: self.breaker.sent(now) }
    }

    /// Notes the limits in time that the answer to a call states. To be called before [`Self::end`].
    pub fn read(&mut self, now: Duration, call: Sent, limits: &RateLimits) {
        let RateLimits { requests, tokens } = *limits;
        for (bucket, stated) in [(&mut self.requests, requests), (&mut self.tokens, tokens)] {
            if let Some(stated) = stated {
                bucket.read(now, call.call, self.sent.count(), stated);
            }
        }
    }

    /// Notes how a call ended.
    pub fn end(&mut self, now: Duration, call: Sent, end: CallEnd) -> BreakerChange {
        let (sent, took) = (call.call.at, now.saturating_sub(call.call.at));
        self.in_flight -= 1;
        let change = match end {
            CallEnd::Answered { is_success, output_tokens, total_tokens } => {
                if sent > self.wait_said_at {
                    self.wait_until = Duration::ZERO;
                }
                if let Some(total_tokens) = total_tokens {
                    self.tokens.used(now, total_tokens);
                }
                if is_success {
                    let (in_flight_at_send, in_flight) = (call.in_flight, self.in_flight);
                    let answered = AnsweredCall { sent, in_flight_at_send, in_flight, output_tokens };
                    self.concurrency.answered(now, &answered);
                    self.pace.answered(now);
                }
                self.breaker.answered(call.epoch)
            }
            CallEnd::Refused { retry_after, reason, has_taken_others } => {
                self.explain(now, sent, retry_after, reason);
                // The limits in time that the answer states say when it takes the next.
                if self.requests.is_empty(now) || self.tokens.is_empty(now) {
                    self.breaker.answered(call.epoch)
                // A server that refuses a lone call, and has taken none for a while, takes none at all. One that has
                // just taken another counts calls in time.
                } else if self.in_flight == 0 && !has_taken_others && !self.pace.answers_come(now) {
                    self.breaker.failed(now, call.epoch, took, LONGEST_PAUSE)
                } else {
                    self.concurrency.refused(now, sent, self.in_flight, retry_after);
                    self.pace.refused(now, sent, self.in_flight);
                    self.breaker.answered(call.epoch)
                }
            }
            CallEnd::Unavailable { retry_after, reason, longest_pause } => {
                self.explain(now, sent, retry_after, reason);
                self.breaker.failed(now, call.epoch, took, longest_pause)
            }
            CallEnd::Abandoned => {
                self.breaker.abandoned(now, call.epoch);
                BreakerChange::Unchanged
            }
        };
        self.follow(now, change)
    }

    fn explain(&mut self, now: Duration, sent: Duration, retry_after: Option<Duration>, reason: String) {
        self.reason = reason;
        if let Some(wait) = retry_after {
            let until = now + wait;
            // The call that asked again has the newest word.
            self.wait_until = if sent > self.wait_said_at { until } else { self.wait_until.max(until) };
            (self.wait_said_at, self.ask_again_at) = (now, now + LONG_WAIT);
        }
    }

    fn follow(&mut self, now: Duration, change: BreakerChange) -> BreakerChange {
        match change {
            BreakerChange::Opened => {
                self.down_since = Some(now);
                self.concurrency.went_down(now);
            }
            BreakerChange::Closed => {
                (self.down_since, self.limited_at) = (None, None);
                self.concurrency.came_back(now);
            }
            BreakerChange::Unchanged => {}
        }
        change
    }
}

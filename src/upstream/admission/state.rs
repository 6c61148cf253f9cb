//! What a model's answers have shown of the server that it is called on. A pure state machine: times are those of any
//! clock that starts anywhere and only goes forward.

use std::time::Duration;

use super::breaker::{Breaker, BreakerChange, BreakerEpoch, LONGEST_PAUSE, TRIP_AFTER};
use super::limit::RefusedLimit;
use super::pace::CallPace;

/// A wait that the server asks for is worth telling if so much of it is left.
const WORTH_TELLING: Duration = Duration::from_secs(10);

/// Whether calls of a model may begin, and how many at once.
#[derive(Debug, Default)]
pub(super) struct AdmissionState {
    breaker: Breaker,
    limit: RefusedLimit,
    pace: CallPace,
    /// No call begins before: the latest `Retry-After`.
    wait_until: Duration,
    in_flight: usize,
    /// Whether a row was let through alone whose call has not been sent.
    is_one_on_its_way: bool,
    /// Until when the gate is shut, as whoever follows the time was told last.
    told: Option<Duration>,
    /// Why the server took no call the last time.
    reason: String,
}

/// Whether rows may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Gate {
    /// They may.
    Open,
    /// One may: its call asks whether the server takes calls again.
    One,
    /// None may.
    Shut,
}

/// When a call was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    at: Duration,
    epoch: BreakerEpoch,
}

/// How a call ended, as far as it concerns the server.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CallEnd {
    /// The server took the row and said something about it.
    Answered { is_success: bool },
    /// The server takes no further call now. `has_taken_others` says that it took another row since the call was sent.
    Refused { retry_after: Option<Duration>, reason: String, has_taken_others: bool },
    /// The server is not there, or takes no row at all.
    Unavailable { retry_after: Option<Duration>, reason: String, longest_pause: Duration },
    /// Nothing is known: it was given up.
    Abandoned,
}

impl AdmissionState {
    /// Why a call that begins now is held back, if it is.
    pub(super) fn held_back(&self, now: Duration) -> Option<&str> {
        (self.gate(now) == Gate::Shut).then_some(&*self.reason)
    }

    /// Whether rows may begin.
    pub(super) fn gate(&self, now: Duration) -> Gate {
        let is_one_at_a_time = !self.breaker.is_closed() || self.pace.is_paced();
        match self.shut_until(now) {
            Some(_) => Gate::Shut,
            None if is_one_at_a_time && self.is_one_on_its_way => Gate::Shut,
            None if is_one_at_a_time => Gate::One,
            None => Gate::Open,
        }
    }

    /// Until when no call may begin, unless something happens before.
    pub(super) fn shut_until(&self, now: Duration) -> Option<Duration> {
        let wait = Some(self.wait_until).filter(|until| *until > now);
        [wait, self.breaker.hold_until(now), self.pace.hold_until(now)].into_iter().flatten().max()
    }

    /// Whether the time of [`Self::shut_until`] is another one than when this was last asked.
    pub(super) fn is_other_time(&mut self, now: Duration) -> bool {
        let until = self.shut_until(now);
        std::mem::replace(&mut self.told, until) != until
    }

    /// How many calls may be under way.
    pub(super) fn limit(&self) -> usize {
        self.limit.limit()
    }

    /// Whether the server is well: calls are not sent one at a time to ask whether it is back.
    pub(super) fn takes_calls(&self) -> bool {
        self.breaker.is_closed()
    }

    /// Whether its calls are sent evenly.
    pub(super) fn is_paced(&self) -> bool {
        self.pace.is_paced()
    }

    /// Whether refusals bound how many calls are under way.
    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_lowered()
    }

    /// Why the server took no call the last time.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// Why no call begins, if none does for a while.
    pub(super) fn trouble(&self, now: Duration) -> Option<String> {
        let wait = self.wait_until.saturating_sub(now);
        if wait >= WORTH_TELLING {
            return Some(format!("{}; it asks to wait for {} s more", self.reason, wait.as_secs()));
        }
        (!self.breaker.is_closed()).then(|| self.reason.clone())
    }

    /// A row is let through alone, or the one that was has ended.
    pub(super) fn set_one_on_its_way(&mut self, is_one: bool) {
        self.is_one_on_its_way = is_one;
    }

    /// Notes that the time is `now`.
    pub(super) fn tick(&mut self, now: Duration) -> BreakerChange {
        let change = self.breaker.tick(now);
        self.follow(change)
    }

    /// Notes that a call is sent.
    pub(super) fn sent(&mut self, now: Duration) -> Sent {
        self.in_flight += 1;
        self.is_one_on_its_way = false;
        self.pace.sent(now);
        Sent { at: now, epoch: self.breaker.sent(now) }
    }

    /// Notes how a call ended.
    pub(super) fn end(&mut self, now: Duration, call: Sent, end: CallEnd) -> BreakerChange {
        let took = now.saturating_sub(call.at);
        self.in_flight -= 1;
        let change = match end {
            CallEnd::Answered { is_success } => {
                if is_success {
                    self.limit.answered(took);
                    self.pace.answered(now);
                }
                self.breaker.answered(call.epoch)
            }
            CallEnd::Refused { retry_after, reason, has_taken_others } => {
                self.explain(now, retry_after, reason);
                // A server that refuses a lone call, and has taken none meanwhile, takes none at all.
                if self.in_flight == 0 && !has_taken_others {
                    self.breaker.failed(now, call.epoch, took, LONGEST_PAUSE)
                } else {
                    self.limit.refused(now, call.at, self.in_flight);
                    self.pace.refused(now, call.at, self.in_flight);
                    self.breaker.answered(call.epoch)
                }
            }
            CallEnd::Unavailable { retry_after, reason, longest_pause } => {
                self.explain(now, retry_after, reason);
                self.breaker.failed(now, call.epoch, took, longest_pause)
            }
            CallEnd::Abandoned => {
                self.breaker.abandoned(now, call.epoch);
                BreakerChange::Unchanged
            }
        };
        self.follow(change)
    }

    fn explain(&mut self, now: Duration, retry_after: Option<Duration>, reason: String) {
        self.reason = reason;
        self.wait_until = self.wait_until.max(now + retry_after.unwrap_or_default());
    }

    fn follow(&mut self, change: BreakerChange) -> BreakerChange {
        match change {
            // Those that opened it were under way too.
            BreakerChange::Opened => self.limit.went_down(self.in_flight + TRIP_AFTER as usize),
            BreakerChange::Closed => self.limit.came_back(),
            BreakerChange::Unchanged => {}
        }
        change
    }
}

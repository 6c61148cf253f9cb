//! Whether a call may be sent to a server now, and how many at once: as its answers show.
//!
//! | an answer, or none | what follows |
//! |---|---|
//! | 429, 503 or 529 | the limit falls to the calls that the server took, or its [pace](pace); with `Retry-After`, no call begins before |
//! | no connection, or the server takes no row at all | five in a row open the [breaker](breaker): one call at a time asks whether the server is back |
//! | anything else | the server is well: the breaker closes, and the limit may rise |
//!
//! A row is charged for none of the first two: [`judge`](judge::judge) says which answers are the server's state. Times
//! are those of the monotonic clock, so that steps of the wall clock neither open nor shut anything.

mod breaker;
mod judge;
mod limit;
mod pace;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::breaker::{Breaker, BreakerChange, BreakerEpoch, LONGEST_PAUSE, LONGEST_PAUSE_OF_REFUSAL};
use self::judge::shows_that_rows_are_taken;
use self::limit::RefusedLimit;
use self::pace::CallPace;
use super::UpstreamError;
use super::limiter::Limiter;
use crate::domain::outcome::HttpResponse;
use crate::sync::lock;
use crate::telemetry::metrics;

pub(super) use judge::{Judgement, judge, shows_no_endpoint};

/// Rows may begin.
const OPEN: u8 = 0;
/// One row may begin.
const ONE: u8 = 1;
/// No row may begin.
const SHUT: u8 = 2;

/// The admission of one server's calls.
#[derive(Debug)]
pub(super) struct Admission {
    limiter: Limiter,
    state: Mutex<AdmissionState>,
    /// What `state` says of rows that want to begin, for a look without a lock.
    gate: AtomicU8,
    /// Rows that the server took.
    taken: AtomicU64,
    /// Told when the limit or the gate has changed.
    changed: Notify,
    started: Instant,
}

#[derive(Debug)]
struct AdmissionState {
    breaker: Breaker,
    limit: RefusedLimit,
    pace: CallPace,
    /// No call begins before: the latest `Retry-After`.
    wait_until: Duration,
    in_flight: usize,
    /// The limiter's limit.
    permits: usize,
    /// Whether a row was let through by itself whose call has not been sent.
    is_one_on_its_way: bool,
    /// Until when no call may begin, as it was told last.
    shut_until: Option<Duration>,
    /// Why the server took no call the last time.
    reason: String,
}

/// A call under way. Dropping it says that the call was given up.
#[derive(Debug)]
pub(super) struct AdmittedCall<'a> {
    admission: &'a Admission,
    sent: Duration,
    epoch: BreakerEpoch,
    taken_before: u64,
    is_over: bool,
}

/// How a call ended, as far as it concerns the server.
#[derive(Debug, Clone, PartialEq)]
enum CallEnd {
    /// The server took the row and said something about it.
    Answered { is_success: bool },
    /// The server takes no further call now.
    Refused { retry_after: Option<Duration>, reason: String },
    /// The server is not there, or takes no row at all.
    Unavailable { retry_after: Option<Duration>, reason: String, longest_pause: Duration },
    /// Nothing is known: it was given up.
    Abandoned,
}

impl Admission {
    /// The admission to a server whose calls `limiter` bounds.
    pub(super) fn new(limiter: Limiter) -> Self {
        let state = AdmissionState {
            breaker: Breaker::default(),
            limit: RefusedLimit::new(limiter.limit()),
            pace: CallPace::default(),
            wait_until: Duration::ZERO,
            in_flight: 0,
            permits: limiter.limit(),
            is_one_on_its_way: false,
            shut_until: None,
            reason: String::new(),
        };
        Self {
            limiter,
            state: Mutex::new(state),
            gate: AtomicU8::new(OPEN),
            taken: AtomicU64::new(0),
            changed: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Sets the most calls that may be under way. Refusals can keep the limit below that.
    pub(super) fn set_ceiling(&self, ceiling: usize) {
        let mut state = self.state();
        state.limit.set_ceiling(ceiling);
        self.settle(&mut state);
    }

    /// The most calls that may be under way, refusals or not.
    pub(super) fn ceiling(&self) -> usize {
        self.state().limit.ceiling()
    }

    /// Whether a row may begin. One relaxed load.
    pub(super) fn may_begin(&self) -> bool {
        self.gate.load(Relaxed) != SHUT
    }

    /// A row begins. Returns whether it was let through by itself, because the server is not well: its call asks
    /// whether the server is back, and the row's end without a call is to be said by [`Admission::leave`].
    pub(super) fn enter(&self) -> bool {
        if self.gate.load(Relaxed) != ONE {
            return false;
        }
        let mut state = self.state();
        let is_alone = self.gate.load(Relaxed) == ONE;
        state.is_one_on_its_way |= is_alone;
        self.settle(&mut state);
        is_alone
    }

    /// A row that was let through by itself has ended, or has made its call.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.is_one_on_its_way = false;
        self.settle(&mut state);
    }

    /// Begins a call; why not, if the server takes none now. `is_alone` as [`Admission::enter`] said.
    pub(super) fn begin(&self, is_alone: bool) -> Result<AdmittedCall<'_>, UpstreamError> {
        let now = self.now();
        let mut state = self.state();
        if !is_alone && state.shut_until(now).is_some() {
            return Err(UpstreamError::HeldBack(state.reason.clone()));
        }
        state.in_flight += 1;
        state.is_one_on_its_way = false;
        state.pace.sent(now);
        let epoch = state.breaker.sent(now);
        self.settle(&mut state);
        let taken_before = self.taken.load(Relaxed);
        Ok(AdmittedCall { admission: self, sent: now, epoch, taken_before, is_over: false })
    }

    /// Why no call begins now, if none does.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state();
        (!state.breaker.is_closed()).then(|| state.reason.clone())
    }

    /// Has the limit and the gate follow the time, and calls `tell` after every change. Never ends.
    pub(super) async fn follow(&self, tell: impl Fn()) {
        loop {
            let due = {
                let mut state = self.state();
                self.settle(&mut state);
                state.shut_until
            };
            tell();
            let changed = self.changed.notified();
            match due {
                Some(due) => drop(tokio::time::timeout_at(self.started + due, changed).await),
                None => changed.await,
            }
        }
    }

    fn end(&self, call: &AdmittedCall<'_>, end: &CallEnd) {
        let now = self.now();
        let mut state = self.state();
        state.in_flight -= 1;
        let (was_limited, was_paced) = (state.limit.is_lowered(), state.pace.is_paced());
        let change = state.end(now, call, end);
        state.note(change);
        let reason = &state.reason;
        if !was_limited && state.limit.is_lowered() && change == BreakerChange::Unchanged {
            tracing::info!(reason, limit = state.limit.limit(), "the upstream refuses calls: fewer are sent at once");
        }
        if !was_paced && state.pace.is_paced() {
            tracing::info!(reason, "the upstream limits calls in time: they are sent evenly");
        }
        self.settle(&mut state);
    }

    /// Makes the limiter and the gate what the state says, and tells of a change.
    fn settle(&self, state: &mut AdmissionState) {
        let now = self.now();
        let change = state.breaker.tick(now);
        if change == BreakerChange::Closed {
            state.limit.halve();
        }
        state.note(change);
        let shut_until = state.shut_until(now);
        let gate = match shut_until {
            Some(_) => SHUT,
            None if state.is_one_at_a_time() && state.is_one_on_its_way => SHUT,
            None if state.is_one_at_a_time() => ONE,
            None => OPEN,
        };
        let limit = state.limit.limit();
        let is_other_limit = std::mem::replace(&mut state.permits, limit) != limit;
        if is_other_limit {
            self.limiter.set_limit(limit);
        }
        let is_other_time = std::mem::replace(&mut state.shut_until, shut_until) != shut_until;
        if self.gate.swap(gate, Relaxed) != gate || is_other_limit || is_other_time {
            self.changed.notify_one();
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        lock(&self.state)
    }
}

impl AdmissionState {
    /// Until when no call may begin, unless something happens before.
    fn shut_until(&self, now: Duration) -> Option<Duration> {
        let wait = Some(self.wait_until).filter(|until| *until > now);
        [wait, self.breaker.hold_until(now), self.pace.hold_until(now)].into_iter().flatten().max()
    }

    fn note(&self, change: BreakerChange) {
        match change {
            BreakerChange::Unchanged => return,
            BreakerChange::Opened => {
                tracing::warn!(reason = self.reason, "the upstream takes no calls: rows wait for it");
            }
            BreakerChange::Closed => tracing::info!("the upstream takes calls again"),
        }
        metrics::upstream_takes_calls(self.breaker.is_closed());
    }

    fn is_one_at_a_time(&self) -> bool {
        !self.breaker.is_closed() || self.pace.is_paced()
    }

    fn end(&mut self, now: Duration, call: &AdmittedCall<'_>, end: &CallEnd) -> BreakerChange {
        let took = now.saturating_sub(call.sent);
        match end {
            CallEnd::Answered { is_success } => {
                if *is_success {
                    self.limit.answered(took);
                    self.pace.answered(now);
                }
                self.heard(call)
            }
            CallEnd::Refused { retry_after, reason } => {
                self.reason.clone_from(reason);
                self.wait_until = self.wait_until.max(now + retry_after.unwrap_or_default());
                // A server that refuses a lone call, and has taken none meanwhile, takes none at all.
                if self.in_flight == 0 && !call.has_heard_others() {
                    return self.failed(now, call, took, LONGEST_PAUSE);
                }
                self.limit.refused(now, call.sent, self.in_flight);
                self.pace.refused(now, call.sent, self.in_flight);
                self.heard(call)
            }
            CallEnd::Unavailable { retry_after, reason, longest_pause } => {
                self.reason.clone_from(reason);
                self.wait_until = self.wait_until.max(now + retry_after.unwrap_or_default());
                self.failed(now, call, took, *longest_pause)
            }
            CallEnd::Abandoned => {
                self.breaker.abandoned(now, call.epoch);
                BreakerChange::Unchanged
            }
        }
    }

    fn failed(
        &mut self,
        now: Duration,
        call: &AdmittedCall<'_>,
        took: Duration,
        longest_pause: Duration,
    ) -> BreakerChange {
        let was_closed = self.breaker.is_closed();
        let change = self.breaker.failed(now, call.epoch, took, longest_pause);
        if change == BreakerChange::Opened && was_closed {
            self.limit.forget_outage();
            return change;
        }
        BreakerChange::Unchanged
    }

    fn heard(&mut self, call: &AdmittedCall<'_>) -> BreakerChange {
        let change = self.breaker.answered(call.epoch);
        if change == BreakerChange::Closed {
            self.limit.halve();
        }
        change
    }
}

impl AdmittedCall<'_> {
    /// Whether the server has taken another row since the call was sent.
    pub(super) fn has_heard_others(&self) -> bool {
        self.admission.taken.load(Relaxed) != self.taken_before
    }

    /// The server's answer is the row's.
    pub(super) fn answered(mut self, response: &HttpResponse) {
        if shows_that_rows_are_taken(response) {
            self.admission.taken.fetch_add(1, Relaxed);
        }
        self.over(&CallEnd::Answered { is_success: response.is_success() });
    }

    /// The server takes no further call now.
    pub(super) fn refused(mut self, response: &HttpResponse) {
        let reason = format!("it answers with status {}", response.status);
        self.over(&CallEnd::Refused { retry_after: response.retry_after, reason });
    }

    /// The server is not there: why.
    pub(super) fn gone(mut self, retry_after: Option<Duration>, reason: String) {
        self.over(&CallEnd::Unavailable { retry_after, reason, longest_pause: LONGEST_PAUSE });
    }

    /// The server takes no row at all: why.
    pub(super) fn unavailable(mut self, retry_after: Option<Duration>, reason: String) {
        self.over(&CallEnd::Unavailable { retry_after, reason, longest_pause: LONGEST_PAUSE_OF_REFUSAL });
    }

    fn over(&mut self, end: &CallEnd) {
        self.is_over = true;
        self.admission.end(self, end);
    }
}

impl Drop for AdmittedCall<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.over(&CallEnd::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests;

//! A circuit breaker: it stops calls to a server that is gone, and finds out with one call at a time when it is back.
//!
//! ```text
//!            five failures in a row                    the pause is over, a call is sent (the probe)
//!   closed ------------------------> open until ... ------------------------------------------------> half-open
//!      ^                                  ^                                                               |
//!      |                                  '------ the probe fails: a pause twice as long ----------------|
//!      '---------- the probe is answered, or is under way for longer than failures take ----------------'
//! ```
//!
//! It is a pure state machine: times are those of any clock that starts anywhere and only goes forward.

use std::time::Duration;

/// Failures in a row that mean that the server is gone. Fewer happen when a proxy drops a connection that several calls
/// share.
pub(super) const TRIP_AFTER: u32 = 5;
/// The first pause; each further one is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a call that found no server. It costs next to nothing to ask, and a server that is back is
/// idle for no longer.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause of a server that is there and takes no row: somebody has to pay, or to change a setting.
pub(super) const LONGEST_PAUSE_OF_REFUSAL: Duration = Duration::from_secs(60);
/// A probe under way for twice as long as the slowest of the failures took, and at least this long, has reached the
/// server. Waiting for its answer would leave a server idle for as long as an answer takes, which may be minutes.
pub(super) const LEAST_SURVIVAL: Duration = Duration::from_secs(1);

/// Whether calls may be sent, judged by whether the last ones reached the server.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    state: BreakerState,
    /// Raised whenever it opens or closes: failures of calls sent before say nothing about the time since.
    epoch: u32,
    failures: u32,
    /// The next pause.
    pause: Duration,
    /// How long the slowest failure of this outage took.
    slowest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed,
    Open { until: Duration },
    HalfOpen { probe_sent: Duration },
}

/// Identifies the time in which a call was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerEpoch(u32);

/// What an event did to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerChange {
    /// Calls are sent, or held back, as before.
    Unchanged,
    /// The server is gone: calls are held back.
    Opened,
    /// The server is back.
    Closed,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, epoch: 0, failures: 0, pause: FIRST_PAUSE, slowest: Duration::ZERO }
    }
}

impl Breaker {
    /// The time before which no call may be sent, unless an event comes before; none if calls may be sent.
    pub(super) fn hold_until(&self, now: Duration) -> Option<Duration> {
        let until = match self.state {
            BreakerState::Closed => return None,
            BreakerState::Open { until } => until,
            BreakerState::HalfOpen { probe_sent } => self.survived_at(probe_sent),
        };
        (now < until).then_some(until)
    }

    /// Whether every call that is sent is answered or fails by itself.
    pub(super) fn is_closed(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// Notes that the time is `now`: a probe may have been under way for long enough. To be called before a call is
    /// sent.
    pub(super) fn tick(&mut self, now: Duration) -> BreakerChange {
        match self.state {
            BreakerState::HalfOpen { probe_sent } if now >= self.survived_at(probe_sent) => self.close(),
            _ => BreakerChange::Unchanged,
        }
    }

    /// Notes that a call is sent. [`Breaker::hold_until`] has said that it may be.
    pub(super) fn sent(&mut self, now: Duration) -> BreakerEpoch {
        if matches!(self.state, BreakerState::Open { .. }) {
            self.state = BreakerState::HalfOpen { probe_sent: now };
            self.epoch = self.epoch.wrapping_add(1);
        }
        BreakerEpoch(self.epoch)
    }

    /// Notes that the server answered a call, whatever it said.
    pub(super) fn answered(&mut self, call: BreakerEpoch) -> BreakerChange {
        if call.0 != self.epoch {
            return BreakerChange::Unchanged;
        }
        self.failures = 0;
        self.pause = FIRST_PAUSE;
        self.slowest = Duration::ZERO;
        if self.is_closed() { BreakerChange::Unchanged } else { self.close() }
    }

    /// Notes that a call did not reach the server, or that the server takes no row. A pause takes `longest_pause` at
    /// most.
    pub(super) fn failed(
        &mut self,
        now: Duration,
        call: BreakerEpoch,
        took: Duration,
        longest_pause: Duration,
    ) -> BreakerChange {
        if call.0 != self.epoch {
            return BreakerChange::Unchanged;
        }
        self.slowest = self.slowest.max(took);
        self.failures = self.failures.saturating_add(1);
        match self.state {
            BreakerState::Closed if self.failures >= TRIP_AFTER => self.open(now, longest_pause),
            BreakerState::HalfOpen { .. } => self.open(now, longest_pause),
            _ => BreakerChange::Unchanged,
        }
    }

    /// Notes that a call was broken off by its caller. If it was the probe, the next call is.
    pub(super) fn abandoned(&mut self, now: Duration, call: BreakerEpoch) {
        if call.0 == self.epoch && matches!(self.state, BreakerState::HalfOpen { .. }) {
            self.state = BreakerState::Open { until: now };
        }
    }

    fn survived_at(&self, probe_sent: Duration) -> Duration {
        probe_sent + LEAST_SURVIVAL.max(self.slowest.saturating_mul(2))
    }

    fn open(&mut self, now: Duration, longest_pause: Duration) -> BreakerChange {
        let was_closed = self.is_closed();
        let pause = self.pause.min(longest_pause);
        self.state = BreakerState::Open { until: now + pause };
        self.pause = pause * 2;
        // Calls that are under way belong to the time before.
        self.epoch = self.epoch.wrapping_add(1);
        if was_closed { BreakerChange::Opened } else { BreakerChange::Unchanged }
    }

    /// The epoch of the probe goes on: if it fails after all, that counts.
    fn close(&mut self) -> BreakerChange {
        self.state = BreakerState::Closed;
        self.failures = 0;
        BreakerChange::Closed
    }
}

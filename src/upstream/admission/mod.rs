//! Whether a model's calls may be sent now, and how many at once: as the answers of its server show.
//!
//! | an answer, or none | what follows |
//! |---|---|
//! | a success | the controller (`concurrency`) sees whether more calls at once would be answered sooner |
//! | `x-ratelimit-*` headers | calls are sent as the limits in time (`rate_bucket`) allow |
//! | 429, 503 or 529 | the limit falls to the calls that the server took, or its `pace`; with `Retry-After`, no call begins before |
//! | no connection, or the server takes no row at all | five in a row open the `breaker`: one call at a time asks whether the server is back |
//! | anything else | the server is well: the breaker closes |
//!
//! A row is charged for no refusal and no outage: `judge` says which answers are the server's state. Each model has an
//! admission of its own, because a gateway can refuse one model and take another. Times are those of the monotonic
//! clock, so that steps of the wall clock neither open nor shut anything.

mod breaker;
mod concurrency;
mod judge;
mod pace;
mod rate_bucket;
mod state;

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use memchr::memmem;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::breaker::LONGEST_PAUSE_OF_REFUSAL;
use self::judge::shows_that_rows_are_taken;
use super::UpstreamError;
use super::limiter::Limiter;
use crate::domain::outcome::HttpResponse;
use crate::domain::rate_limits::RateLimits;
use crate::sync::lock;

pub use breaker::{BreakerChange, BreakerEpoch, LONGEST_PAUSE};
pub use concurrency::{AnsweredCall, ConcurrencyController, LimitReason};
pub(super) use judge::{Judgement, RowSigns, judge, shows_no_endpoint};
pub use state::{AdmissionState, CallEnd, Gate, Sent};

/// An answer states its usage in its last bytes.
const USAGE_BYTES: usize = 1024;

/// The admission of one model's calls to a server.
#[derive(Debug)]
pub struct Admission {
    state: Mutex<AdmissionState>,
    /// The bound of all models together, and so the ceiling of this one.
    limiter: Limiter,
    /// What `state` says of rows that want to begin, for a look without a lock: a [`Gate`].
    gate: AtomicU8,
    /// How many calls may be under way, for the same. No bound if that is the ceiling, which the limiter keeps.
    limit: AtomicUsize,
    /// Rows that the server took.
    taken: AtomicU64,
    /// Told when the gate or the limit has changed, for the task that follows the server.
    changed: Arc<Notify>,
    /// Told when the gate has opened, for rows that wait with their next call.
    opened: Notify,
    started: Instant,
}

/// The right of a row to begin alone, while the others wait: its call asks whether the server takes calls again.
/// Dropping it gives the right to another row.
#[derive(Debug)]
pub struct LoneEntry {
    /// None once the row's call has begun.
    admission: Option<Arc<Admission>>,
}

/// How often a row was refused in a row, for whatever the server said of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefusalHistory {
    refusals: u32,
    /// How many rows the server had taken at the last refusal.
    taken: u64,
}

/// A call under way. Dropping it says that the call was given up.
#[derive(Debug)]
pub(super) struct AdmittedCall<'a> {
    admission: &'a Admission,
    sent: Sent,
    taken_before: u64,
    is_over: bool,
}

impl Admission {
    /// An admission of which nothing is known, with a controller of calls below the bound of `limiter`. `changed` is
    /// told when rows may begin that could not.
    pub(super) fn new(limiter: Limiter, concurrency: ConcurrencyController, changed: Arc<Notify>) -> Self {
        let state = AdmissionState::new(concurrency);
        let admission = Self {
            state: Mutex::new(state),
            limiter,
            gate: AtomicU8::new(Gate::Open as u8),
            limit: AtomicUsize::new(usize::MAX),
            taken: AtomicU64::new(0),
            changed,
            opened: Notify::new(),
            started: Instant::now(),
        };
        admission.follow();
        admission
    }

    /// Whether a row may begin while so many rows of its model are under way. Two relaxed loads.
    #[must_use]
    pub fn may_begin(&self, under_way: usize) -> bool {
        self.gate.load(Relaxed) != Gate::Shut as u8 && under_way < self.limit.load(Relaxed)
    }

    /// A row begins: the right to do so alone, if the server is not well.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<LoneEntry> {
        if self.gate.load(Relaxed) != Gate::One as u8 {
            return None;
        }
        let (now, mut state) = (self.now(), self.state());
        if state.gate(now) != Gate::One {
            return None;
        }
        state.set_one_on_its_way(true);
        self.settle(&mut state, now);
        Some(LoneEntry { admission: Some(self.clone()) })
    }

    /// How many calls may be under way.
    pub(super) fn limit(&self) -> usize {
        self.state().limit()
    }

    /// Why no call begins now, if none does for a while.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble(self.now())
    }

    /// Why a call would be held back now.
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] with the reason.
    pub(super) fn check(&self, is_lone: bool) -> Result<(), UpstreamError> {
        if is_lone || self.gate.load(Relaxed) == Gate::Open as u8 {
            return Ok(());
        }
        match self.state().held_back(self.now()) {
            Some(reason) => Err(UpstreamError::HeldBack(reason.to_owned())),
            None => Ok(()),
        }
    }

    /// Begins a call. `is_lone` says that its row has a [`LoneEntry`].
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] if the server takes no call now.
    pub(super) fn begin(&self, is_lone: bool) -> Result<AdmittedCall<'_>, UpstreamError> {
        let now = self.now();
        let mut state = self.state();
        if !is_lone && let Some(reason) = state.held_back(now) {
            return Err(UpstreamError::HeldBack(reason.to_owned()));
        }
        let sent = state.sent(now);
        self.settle(&mut state, now);
        let taken_before = self.taken.load(Relaxed);
        Ok(AdmittedCall { admission: self, sent, taken_before, is_over: false })
    }

    /// Waits until a call may begin.
    pub(super) async fn until_open(&self) {
        loop {
            let opened = self.opened.notified();
            if self.check(false).is_ok() {
                return;
            }
            opened.await;
        }
    }

    /// Has the gate and the limit follow the time. When they change next by time alone.
    pub(super) fn follow(&self) -> Option<Instant> {
        let (now, mut state) = (self.now(), self.state());
        self.settle(&mut state, now);
        state.shut_until(now).map(|until| self.started + until)
    }

    fn leave(&self) {
        let mut state = self.state();
        state.set_one_on_its_way(false);
        self.settle(&mut state, self.now());
    }

    fn end(&self, call: Sent, end: CallEnd, rate_limits: Option<&RateLimits>) {
        let now = self.now();
        let mut state = self.state();
        if let Some(limits) = rate_limits {
            state.read(now, call, limits);
        }
        let (was_reason, was_paced) = (state.limit_reason(), state.is_paced());
        let change = state.end(now, call, end);
        tell(&state, change);
        let (reason, limit) = (state.reason(), state.limit());
        if was_reason != LimitReason::Refused && state.limit_reason() == LimitReason::Refused {
            tracing::info!(reason, limit, "the upstream refuses calls: fewer are sent at once");
        }
        if !was_paced && state.is_paced() {
            tracing::info!(reason, "the upstream limits calls in time: they are sent evenly");
        }
        self.settle(&mut state, now);
    }

    /// Makes the gate and the limit what the state says, and tells of a change.
    fn settle(&self, state: &mut AdmissionState, now: Duration) {
        let ceiling = self.limiter.limit();
        state.set_ceiling(ceiling);
        let change = state.tick(now);
        tell(state, change);
        let gate = state.gate(now);
        let limit = if state.limit() >= ceiling { usize::MAX } else { state.limit() };
        let was = self.gate.load(Relaxed);
        let is_other_gate = was != gate as u8;
        if is_other_gate {
            self.gate.store(gate as u8, Relaxed);
        }
        let is_other_limit = self.limit.load(Relaxed) != limit;
        if is_other_limit {
            self.limit.store(limit, Relaxed);
        }
        if state.is_other_time(now) | is_other_gate | is_other_limit {
            self.changed.notify_one();
        }
        if is_other_gate && gate != Gate::Shut {
            self.opened.notify_waiters();
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        lock(&self.state)
    }
}

/// The output tokens that an answer states near its end, where servers write them. A guess is enough here: this reads
/// every answer once more.
fn output_tokens(body: &[u8]) -> Option<u64> {
    let end = &body[body.len().saturating_sub(USAGE_BYTES)..];
    let names: [&[u8]; 2] = [b"\"completion_tokens\"", b"\"output_tokens\""];
    let after = names.iter().find_map(|name| Some(&end[memmem::rfind(end, name)? + name.len()..]))?;
    let value = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

fn tell(state: &AdmissionState, change: BreakerChange) {
    match change {
        BreakerChange::Unchanged => {}
        BreakerChange::Opened => {
            tracing::warn!(reason = state.reason(), "the upstream takes no calls: rows wait for it");
        }
        BreakerChange::Closed => tracing::info!("the upstream takes calls again"),
    }
}

impl LoneEntry {
    /// The row's call has begun.
    pub(super) fn use_up(mut self) {
        self.admission = None;
    }
}

impl Drop for LoneEntry {
    fn drop(&mut self) {
        if let Some(admission) = &self.admission {
            admission.leave();
        }
    }
}

impl AdmittedCall<'_> {
    /// What is known of the row that the call is for.
    pub(super) fn signs(&self, history: RefusalHistory) -> RowSigns {
        let since_refusal = history.refusals > 0 && self.admission.taken.load(Relaxed) != history.taken;
        RowSigns { has_taken_others: self.has_taken_others() || since_refusal, refusals: history.refusals }
    }

    /// The server's answer is the row's.
    pub(super) fn answered(mut self, response: &HttpResponse, history: &mut RefusalHistory) {
        *history = RefusalHistory::default();
        if shows_that_rows_are_taken(response) {
            self.admission.taken.fetch_add(1, Relaxed);
        }
        let (is_success, output_tokens) = (response.is_success(), output_tokens(&response.body));
        self.over(CallEnd::Answered { is_success, output_tokens }, Some(response));
    }

    /// The server takes no further call now.
    pub(super) fn refused(mut self, response: &HttpResponse, reason: String, history: &mut RefusalHistory) {
        self.count(history);
        let has_taken_others = self.has_taken_others();
        let retry_after = response.retry_after;
        self.over(CallEnd::Refused { retry_after, reason, has_taken_others }, Some(response));
    }

    /// The server is not there: why.
    pub(super) fn gone(mut self, retry_after: Option<Duration>, reason: String, history: &mut RefusalHistory) {
        self.count(history);
        self.over(CallEnd::Unavailable { retry_after, reason, longest_pause: LONGEST_PAUSE }, None);
    }

    /// The server takes no row at all: why.
    pub(super) fn unavailable(mut self, retry_after: Option<Duration>, reason: String, history: &mut RefusalHistory) {
        self.count(history);
        let longest_pause = LONGEST_PAUSE_OF_REFUSAL;
        self.over(CallEnd::Unavailable { retry_after, reason, longest_pause }, None);
    }

    /// Whether the server has taken another row since the call was sent.
    fn has_taken_others(&self) -> bool {
        self.admission.taken.load(Relaxed) != self.taken_before
    }

    fn count(&self, history: &mut RefusalHistory) {
        let taken = self.admission.taken.load(Relaxed);
        *history = RefusalHistory { refusals: history.refusals.saturating_add(1), taken };
    }

    fn over(&mut self, end: CallEnd, response: Option<&HttpResponse>) {
        self.is_over = true;
        let rate_limits = response.and_then(|response| response.rate_limits.as_deref());
        self.admission.end(self.sent, end, rate_limits);
    }
}

impl Drop for AdmittedCall<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.over(CallEnd::Abandoned, None);
        }
    }
}

#[cfg(test)]
mod tests;

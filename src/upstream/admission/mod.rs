//! Whether a model's calls may be sent now, and how many at once: as the answers of its server show.
//!
//! | an answer, or none | what follows |
//! |---|---|
//! | a success | the controller (`concurrency`) sees whether more calls at once would be answered sooner |
//! | `x-ratelimit-*` headers | calls are sent as the limits in time (`rate_bucket`) allow |
//! | 429, 503 or 529 | the limit falls to the calls that the server took, or its `pace`; with `Retry-After`, no call begins before |
//! | no connection, or the server takes no row at all, or fails with all | five in a row open the `breaker`: one call at a time asks whether the server is back |
//! | anything else | the server is well: the breaker closes |
//!
//! A row is charged for no refusal and no outage: `judge` says which answers are the server's state. Each model has an
//! admission of its own, because a gateway can refuse one model and take another. Times are those of the monotonic
//! clock, so that steps of the wall clock neither open nor shut anything.

mod breaker;
mod call;
mod concurrency;
mod judge;
mod pace;
mod rate_bucket;
mod served_rows;
mod state;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::served_rows::ServedRows;
use super::UpstreamError;
use crate::domain::activity::{CallLimit, UpstreamActivity, UpstreamState};
use crate::domain::rate_limits::RateLimits;
use crate::domain::time::Timestamp;
use crate::sync::lock;

pub use breaker::{BreakerChange, BreakerEpoch, LONGEST_PAUSE};
pub(super) use call::AdmittedCall;
pub use call::CallHistory;
pub use concurrency::{AnsweredCall, ConcurrencyController, LimitReason};
pub(super) use judge::{Judgement, RowSigns, is_doubtful, judge, shows_no_endpoint, with_quota_judged};
pub use state::{AdmissionState, CallEnd, CallStanding, Gate, GivenRates, Sent};

/// A server that has answered so many rows in a row, and none with success, is suspect.
const SUSPECT: u32 = 5;
/// A suspect server is tried again after so long, and after twice as long each time, up to 32 times as long.
const FIRST_TRIAL: Duration = Duration::from_secs(1);

/// The admission of one model's calls to a server.
#[derive(Debug)]
pub struct Admission {
    of: AdmittedModel,
    state: Mutex<AdmissionState>,
    /// The bound of all models of the server together, and so the ceiling of this one.
    ceiling: Arc<AtomicUsize>,
    /// What `state` says of rows that want to begin, for a look without a lock: a [`Gate`].
    gate: AtomicU8,
    /// How many calls may be under way, for the same. No bound if that is the ceiling, which is kept elsewhere.
    limit: AtomicUsize,
    /// Rows that have a call under way, or may make one at any time.
    rows: AtomicUsize,
    served: ServedRows,
    /// Whether it has answered any with success, and how many in a row it has not.
    has_succeeded: AtomicBool,
    failures: AtomicU32,
    /// When a server that answers no row with success is tried again, in milliseconds since the start.
    next_trial: AtomicU64,
    /// Told when the gate or the limit has changed, for the task that follows the server.
    changed: Arc<Notify>,
    /// Told when the gate has opened, for rows that wait with their next call.
    opened: Notify,
    started: Instant,
}

/// Which calls an admission is about.
#[derive(Debug, Clone)]
pub(super) struct AdmittedModel {
    /// The server's name and number.
    pub(super) upstream: Arc<str>,
    pub(super) server_no: u32,
    /// The server's name for the model.
    pub(super) model: Arc<str>,
}

/// The right of a row to begin alone, while the others wait: its call asks whether the server takes calls again.
/// Dropping it gives the right to another row.
#[derive(Debug)]
pub struct LoneEntry {
    /// None once the row's call has begun.
    admission: Option<Arc<Admission>>,
}

impl Admission {
    /// An admission of which nothing is known, with a controller of calls below a ceiling that may change, and limits
    /// in time that the settings give. `changed` is told when rows may begin that could not.
    pub(super) fn new(
        of: AdmittedModel,
        ceiling: Arc<AtomicUsize>,
        concurrency: ConcurrencyController,
        rates: GivenRates,
        changed: Arc<Notify>,
    ) -> Self {
        let admission = Self {
            of,
            state: Mutex::new(AdmissionState::new(concurrency).with_rates(rates)),
            ceiling,
            gate: AtomicU8::new(Gate::Open as u8),
            limit: AtomicUsize::new(usize::MAX),
            rows: AtomicUsize::new(0),
            served: ServedRows::default(),
            has_succeeded: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            next_trial: AtomicU64::new(0),
            changed,
            opened: Notify::new(),
            started: Instant::now(),
        };
        admission.follow();
        admission
    }

    /// Whether a row may begin. Three relaxed loads.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.gate.load(Relaxed) != Gate::Shut as u8 && self.rows() < self.limit.load(Relaxed)
    }

    /// Where the rows under way are counted.
    pub(super) fn rows_under_way(&self) -> &AtomicUsize {
        &self.rows
    }

    /// How many rows are under way.
    pub(super) fn rows(&self) -> usize {
        self.rows.load(Relaxed)
    }

    /// What share of the calls that may be under way would be, with one more.
    pub(super) fn load(&self) -> f64 {
        let most = self.limit.load(Relaxed).min(self.ceiling.load(Relaxed));
        count(self.rows() + 1) / count(most.max(1))
    }

    /// Whether it has answered any row with success.
    pub(super) fn has_succeeded(&self) -> bool {
        self.has_succeeded.load(Relaxed)
    }

    /// Whether it has answered several rows in a row, and none with success: beside a server that does, it may be at
    /// fault itself.
    pub(super) fn is_suspect(&self) -> bool {
        self.failures.load(Relaxed) >= SUSPECT
    }

    /// Whether it is to be tried again although it is suspect.
    pub(super) fn is_trial_due(&self) -> bool {
        self.now() >= Duration::from_millis(self.next_trial.load(Relaxed))
    }

    /// Notes whether an answer was a success.
    fn note_success(&self, is_success: bool) {
        if is_success {
            self.failures.store(0, Relaxed);
            self.has_succeeded.store(true, Relaxed);
            return;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let pause = FIRST_TRIAL.saturating_mul(1 << failures.saturating_sub(SUSPECT).min(5));
        let due = u64::try_from((self.now() + pause).as_millis()).unwrap_or(u64::MAX);
        self.next_trial.store(due, Relaxed);
    }

    /// Whether the server has taken any row.
    pub(super) fn has_taken(&self) -> bool {
        self.served.taken() > 0
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

    /// What its calls have shown of the server, for those who wait. `now` is the time of the wall clock.
    pub(super) fn activity(&self, now: Timestamp) -> UpstreamActivity {
        let (elapsed, state) = (self.now(), self.state());
        let why = || match state.reason() {
            "" => "its limit of requests or tokens is used up".to_owned(),
            reason => reason.to_owned(),
        };
        let standing = match state.standing(elapsed) {
            CallStanding::Open => UpstreamState::Open,
            CallStanding::Limited(until) => {
                UpstreamState::Limited { until: until.map(|until| now.plus(until.saturating_sub(elapsed))), why: why() }
            }
            CallStanding::Down(since) => {
                UpstreamState::Down { since: Some(now.minus(elapsed.saturating_sub(since))), why: why() }
            }
        };
        let ceiling = self.ceiling.load(Relaxed);
        UpstreamActivity {
            upstream: self.of.upstream.to_string(),
            running: self.rows() as u64,
            limit: state.limit().min(ceiling) as u64,
            limited_by: if state.limit() >= ceiling { CallLimit::Settings } else { limited_by(state.limit_reason()) },
            state: standing,
        }
    }

    /// Whether a call may begin.
    ///
    /// # Errors
    /// Why it would be held back.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.gate.load(Relaxed) == Gate::Open as u8 {
            return Ok(());
        }
        self.state().held_back(self.now()).map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    /// Begins a call. `is_lone` says that its row has a [`LoneEntry`].
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] if the server takes no call now.
    pub(super) fn begin(&self, is_lone: bool) -> Result<AdmittedCall<'_>, UpstreamError> {
        let now = self.now();
        let mut state = self.state();
        // Time alone opens the gate, and never shuts it.
        let is_open = is_lone || self.gate.load(Relaxed) == Gate::Open as u8;
        if !is_open && let Some(reason) = state.held_back(now) {
            return Err(UpstreamError::HeldBack(reason.to_owned()));
        }
        let sent = state.sent(now);
        self.settle(&mut state, now);
        Ok(AdmittedCall::new(self, sent))
    }

    /// Waits until a call may begin.
    pub(super) async fn until_open(&self) {
        loop {
            let opened = self.opened.notified();
            if self.check().is_ok() {
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

    /// Notes how many calls wait in the server, as its own metrics say.
    pub(super) fn note_waiting(&self, waiting: usize) {
        let (now, mut state) = (self.now(), self.state());
        state.note_waiting(now, waiting);
        self.settle(&mut state, now);
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
        self.tell(&state, change);
        let AdmittedModel { upstream, model, .. } = &self.of;
        let (reason, limit) = (state.reason(), state.limit());
        if was_reason != LimitReason::Refused && state.limit_reason() == LimitReason::Refused {
            tracing::info!(%upstream, %model, reason, limit, "the upstream refuses calls: fewer are sent at once");
        }
        if !was_paced && state.is_paced() {
            tracing::info!(%upstream, %model, reason, "the upstream limits calls in time: they are sent evenly");
        }
        self.settle(&mut state, now);
    }

    /// Makes the gate and the limit what the state says, and tells of a change.
    fn settle(&self, state: &mut AdmissionState, now: Duration) {
        let ceiling = self.ceiling.load(Relaxed);
        state.set_ceiling(ceiling);
        let change = state.tick(now);
        self.tell(state, change);
        let (gate, is_other_time) = state.look(now);
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
        if is_other_time | is_other_gate | is_other_limit {
            self.changed.notify_one();
        }
        if is_other_gate && gate != Gate::Shut {
            self.opened.notify_waiters();
        }
    }

    fn tell(&self, state: &AdmissionState, change: BreakerChange) {
        let AdmittedModel { upstream, model, .. } = &self.of;
        match change {
            BreakerChange::Unchanged => {}
            BreakerChange::Opened => {
                let reason = state.reason();
                tracing::warn!(%upstream, %model, reason, "the upstream takes no calls: rows wait for it");
            }
            BreakerChange::Closed => tracing::info!(%upstream, %model, "the upstream takes calls again"),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, AdmissionState> {
        lock(&self.state)
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

fn limited_by(reason: LimitReason) -> CallLimit {
    match reason {
        LimitReason::Starting | LimitReason::Rising | LimitReason::Recovering => CallLimit::Searching,
        LimitReason::Queueing | LimitReason::NoGain => CallLimit::Throughput,
        LimitReason::Refused => CallLimit::Refusals,
        LimitReason::Ceiling => CallLimit::Settings,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
fn count(calls: usize) -> f64 {
    calls as f64
}

#[cfg(test)]
mod tests;

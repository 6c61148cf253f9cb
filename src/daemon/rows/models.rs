//! The models that have rows here, and whose row is next.
//!
//! A model that has not answered yet, whose last call found no server, or which has been silent for far longer than
//! usual, may be one that hangs. One in 32 calls is its own, at least one. While a model that answers has rows here, it
//! gets no more. Otherwise it may have more, on loan, and leaves an eighth of the calls that others do not use
//! to models to come. Loans are recalled when rows of a model that answers wait for a call, or rows of a model that has
//! fewer than its own. The latest is recalled first. A row whose call is recalled waits here again.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::batches::{BatchPlace, Batches};
use super::deadlines::at_risk_until;
use super::queue::QueuedRow;
use super::service_time::ServiceTime;
use crate::domain::activity::{BatchActivity, ModelActivity};
use crate::domain::ids::BatchId;
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::recent_course::RecentCourse;
use crate::domain::time::{Clock, Timestamp};
use crate::upstream::{Registry, RouteUse, Routes};

/// One in so many calls stays with a model that does not answer: by them it can show that it does, and a model that
/// hangs costs those that answer no more.
const OWN_IN: usize = 32;
/// Of fewer calls none is left unused for models to come.
const FEW: usize = 4;
/// Models that are remembered although none of their rows is here.
const IDLE_MODELS: usize = 256;

/// What the queue's lock is around.
pub(in crate::daemon) struct Models {
    registry: Registry,
    /// The registry's generation when the queues got their routes.
    generation: u64,
    clock: Clock,
    /// Whether the metadata of batches may ask for a priority.
    have_priorities: bool,
    /// What shares the projects have.
    projects: Arc<ProjectLimitTable>,
    queues: Vec<ModelQueue>,
    /// Calls that may run at once.
    permits: usize,
    /// Rows that workers have.
    running: usize,
    /// Those of them whose loan was recalled.
    recalled: usize,
    /// How many rows were taken so far.
    taken: u64,
}

/// The rows of one model.
struct ModelQueue {
    name: Arc<str>,
    routes: Routes,
    batches: Batches,
    /// Rows that workers have.
    running: usize,
    /// When a row was taken last: of two with as many under way, the one that was served earlier is next.
    served: u64,
    service: ServiceTime,
    answers: Arc<Answers>,
    /// Rows that have a call on loan, in the order in which they began.
    loans: Vec<Loan>,
}

/// A call that a row has on loan.
#[derive(Debug, Clone)]
pub(super) struct Loan {
    no: u64,
    /// Cancelled when the call is to be given back.
    pub(super) recall: CancellationToken,
}

/// Rows wait, and none may begin.
pub(super) struct HeldBack;

/// The place of a row that is next.
#[derive(Clone, Copy)]
pub(super) struct Place {
    model: usize,
    batch: BatchPlace,
}

/// A row that was taken, and what its share of the calls is made of.
pub(super) struct TakenRow {
    pub(super) row: QueuedRow,
    /// Its place at a server. None if no server has its model any more.
    pub(super) route: Option<RouteUse>,
    pub(super) answers: Arc<Answers>,
    pub(super) loan: Option<Loan>,
}

impl ModelQueue {
    fn answers(&self, now: Timestamp) -> bool {
        self.answers.come(self.running > 0, now)
    }
}

impl Models {
    /// No models, for as many calls as the registry has.
    pub(super) fn new(
        registry: Registry,
        clock: Clock,
        have_priorities: bool,
        projects: Arc<ProjectLimitTable>,
    ) -> Self {
        let (permits, generation) = (registry.limit(), registry.generation());
        let queues = Vec::new();
        Self {
            registry,
            generation,
            clock,
            have_priorities,
            projects,
            queues,
            permits,
            running: 0,
            recalled: 0,
            taken: 0,
        }
    }

    /// Notes how many calls may run at once now, and which servers there are.
    pub(super) fn follow_registry(&mut self) -> usize {
        let generation = self.registry.generation();
        if generation != self.generation {
            self.generation = generation;
            for model in &mut self.queues {
                model.routes = self.registry.routes(&model.name);
            }
        }
        self.permits = self.registry.limit();
        self.permits
    }

    /// Adds a row behind those of its batch, or before them if it has run before.
    pub(super) fn push(&mut self, row: QueuedRow) {
        let model = row.request.data.model.clone();
        let (have_priorities, projects) = (self.have_priorities, self.projects.clone());
        self.model(&model).batches.push(row, have_priorities, &projects);
    }

    /// Removes the rows that are not to be kept.
    pub(super) fn retain(&mut self, keep: impl Fn(&QueuedRow) -> bool) {
        for model in &mut self.queues {
            model.batches.retain(&keep);
        }
    }

    fn model(&mut self, name: &Arc<str>) -> &mut ModelQueue {
        let no = self.queues.iter().position(|known| known.name == *name).unwrap_or_else(|| {
            if self.queues.len() >= IDLE_MODELS {
                self.queues.retain(|known| !known.batches.is_empty());
            }
            let now = self.clock.now();
            self.queues.push(ModelQueue {
                name: name.clone(),
                routes: self.registry.routes(name),
                batches: Batches::default(),
                running: 0,
                served: 0,
                service: ServiceTime::new(now),
                answers: Arc::default(),
                loans: Vec::new(),
            });
            self.queues.len() - 1
        });
        &mut self.queues[no]
    }

    /// Finds which batches are at risk of missing their windows. `unclaimed` has the rows of each model that no daemon
    /// has claimed, with the windows of their batches. So many daemons run them, each about as many as this one.
    pub(super) fn look_at_windows(&mut self, unclaimed: &HashMap<Arc<str>, Vec<(Timestamp, u64)>>, daemons: u32) {
        let now = self.clock.now();
        for model in &mut self.queues {
            let of_model = unclaimed.get(&model.name).into_iter().flatten().copied();
            model.service.pass(now, model.running);
            let rate = model.service.rows_a_second(model.running).unwrap_or_default() * f64::from(daemons);
            let until = at_risk_until(now, rate, model.batches.windows().chain(of_model));
            model.batches.set_at_risk_until(until);
        }
    }

    /// The place of the row that is next. `Err` if rows wait and none may begin.
    pub(super) fn next(&self) -> Result<Option<Place>, HeldBack> {
        let bound = self.bound_of_silent();
        let next = self.next_of(|model| bound.is_none_or(|bound| bound.lets_begin(self, model)));
        match next {
            None if self.queues.iter().any(|model| model.batches.has_rows()) => Err(HeldBack),
            next => Ok(next),
        }
    }

    fn next_of(&self, chosen: impl Fn(&ModelQueue) -> bool) -> Option<Place> {
        let routes_let =
            |model: &ModelQueue| model.batches.has_rows() && model.routes.may_begin(model.batches.has_rows_at_risk());
        let may_begin = |model: &ModelQueue| routes_let(model) && chosen(model);
        let models = self.queues.iter().enumerate().filter(|(_, model)| may_begin(model));
        let (no, model) = models.min_by_key(|(_, model)| (model.running, model.served))?;
        Some(Place { model: no, batch: model.batches.next()? })
    }

    /// What bounds a model that does not answer; `None` if the only model here does.
    fn bound_of_silent(&self) -> Option<Bound> {
        if let [only] = self.queues.as_slice()
            && only.answers.has_answered()
        {
            return None;
        }
        let now = self.clock.now();
        let is_here = |model: &ModelQueue| model.running > 0 || model.batches.has_rows();
        let may_lend = !self.queues.iter().any(|model| is_here(model) && model.answers(now));
        Some(Bound { now, may_lend })
    }

    /// The calls that are a model's own while it does not answer.
    fn own(&self) -> usize {
        (self.permits / OWN_IN).max(1)
    }

    /// Takes the row at a place.
    pub(super) fn take(&mut self, place: Place) -> Option<TakenRow> {
        let own = self.own();
        self.taken += 1;
        let model = &mut self.queues[place.model];
        let is_at_risk = model.batches.has_rows_at_risk();
        let now = self.clock.now();
        let row = model.batches.take(place.batch, self.taken, now)?;
        model.served = self.taken;
        let loan = (!model.answers.has_answered() && model.running >= own)
            .then(|| Loan { no: self.taken, recall: CancellationToken::new() });
        model.loans.extend(loan.clone());
        if model.running == 0 {
            model.answers.wait_from(now);
        }
        model.service.pass(now, model.running);
        model.service.begin();
        self.running += 1;
        model.running += 1;
        let route = model.routes.begin(row.history, is_at_risk);
        Some(TakenRow { row, route, answers: model.answers.clone(), loan })
    }

    /// Counts a row under way more or less.
    pub(super) fn count(&mut self, model: &Arc<str>, id: BatchId, change: isize) {
        self.running = self.running.saturating_add_signed(change);
        let now = self.clock.now();
        let model = self.model(model);
        model.service.pass(now, model.running);
        model.running = model.running.saturating_add_signed(change);
        if model.batches.count(id, change) {
            model.batches.tidy();
        }
    }

    /// A worker has a row no more, which does not count as under way.
    pub(super) fn end(&mut self, model: &Arc<str>, id: BatchId) {
        let model = self.model(model);
        if model.batches.end(id) {
            model.batches.tidy();
        }
    }

    /// What workers do: for each model, and for each of its batches.
    pub(in crate::daemon) fn activity(&self) -> (Vec<ModelActivity>, Vec<BatchActivity>) {
        let now = self.clock.now();
        let batches = self.queues.iter().flat_map(|model| model.batches.activities()).collect();
        let activity = |model: &ModelQueue| ModelActivity {
            model: model.name.to_string(),
            running: model.running as u64,
            batches: model.batches.activities().count() as u64,
            seconds_per_row: model.service.seconds_per_row().map(|seconds| (seconds * 1000.0).round() / 1000.0),
            upstreams: model.routes.activities(now),
            recent: RecentCourse::default(),
        };
        (self.queues.iter().map(activity).collect(), batches)
    }

    /// Makes the loans of a model that has answered its own.
    pub(super) fn forget_loans(&mut self, model: &Arc<str>) {
        self.model(model).loans.clear();
    }

    /// Notes that a row does without a call that it had on loan.
    pub(super) fn end_loan(&mut self, model: &Arc<str>, loan: &Loan) {
        self.model(model).loans.retain(|known| known.no != loan.no);
        if loan.recall.is_cancelled() {
            self.recalled -= 1;
        }
    }

    /// Recalls as many loans as there are rows that would begin if a call was free: any of a model that answers, and
    /// those for which another model has calls of its own.
    pub(super) fn recall_loans(&mut self) {
        if self.queues.iter().all(|model| model.loans.is_empty()) {
            return;
        }
        let (now, own) = (self.clock.now(), self.own());
        let would_begin = |model: &ModelQueue| {
            let most = if model.answers(now) { usize::MAX } else { own.saturating_sub(model.running) };
            model.batches.waiting().min(most)
        };
        let wanted: usize = self.queues.iter().map(would_begin).sum();
        let coming = self.permits.saturating_sub(self.running) + self.recalled;
        for _ in coming..wanted {
            let latest = self.queues.iter_mut().max_by_key(|model| model.loans.last().map(|loan| loan.no));
            let Some(loan) = latest.and_then(|model| model.loans.pop()) else { return };
            self.recalled += 1;
            loan.recall.cancel();
        }
    }
}

/// What a model that does not answer may have at one moment.
#[derive(Clone, Copy)]
struct Bound {
    now: Timestamp,
    /// Whether it may have more than its own.
    may_lend: bool,
}

impl Bound {
    fn lets_begin(self, models: &Models, model: &ModelQueue) -> bool {
        if model.answers(self.now) {
            return true;
        }
        let not_of_others = models.permits.saturating_sub(models.running - model.running);
        let left_to_others = if models.permits < FEW { 0 } else { (not_of_others / 8).max(1) };
        let most = not_of_others.saturating_sub(left_to_others).max(1);
        model.running < if self.may_lend { most } else { most.min(models.own()) }
    }
}

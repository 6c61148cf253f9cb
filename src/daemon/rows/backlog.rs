//! Rows that this daemon has leased and not begun. The claim loop refills them.
//!
//! Each lane has a backlog of its own, so that the daemon goes on claiming other lanes while the rows of one do not
//! begin.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::domain::ids::BatchId;
use crate::domain::lease::OpenLane;
use crate::domain::time::Timestamp;
use crate::sync::lock;
use crate::telemetry::metrics;

/// Models that may have rows waiting here. The lanes of other models are claimed when one of them has none.
const MODELS: usize = 64;
/// Reads of a lane whose rows may wait, so that no worker waits for the disk. A read is small, or one long row.
const READS_AHEAD: usize = 4;
/// Most rows of a lease. It bounds how many rows wait for a takeover after a crash.
const MAX_LEASE: usize = 10_000;
/// Fewest rows of a lease, unless its lane has fewer: each lease costs a few statements.
const MIN_LEASE: usize = 16;

/// The rows of one batch that go to one model.
type LaneKey = (BatchId, Arc<str>);

/// The backlogs of all lanes of which this daemon holds leases.
#[derive(Default)]
pub(super) struct Backlogs {
    lanes: Mutex<HashMap<LaneKey, Weak<Backlog>>>,
    /// Notified when a backlog becomes short. The claim loop waits for it.
    short: Arc<Notify>,
}

/// The backlog of one lane. It lasts as long as this daemon holds one of the lane's leases.
pub(super) struct Backlog {
    /// Rows that are leased and not begun.
    waiting: AtomicUsize,
    /// Rows begun since the backlog was made.
    begun: AtomicUsize,
    /// The backlog is short when fewer rows than this wait. Written by the claim loop.
    mark: AtomicUsize,
    pace: Mutex<Pace>,
    /// One permit for each read whose rows may wait.
    reads: Arc<Semaphore>,
    short: Arc<Notify>,
}

/// A row that was leased and has not begun. Its drop takes it off the backlog.
pub(super) struct Waiting {
    /// None once it has begun.
    backlog: Option<Arc<Backlog>>,
    /// When the row's batch was created, if the row is its first.
    batch_created_at: Option<Timestamp>,
}

/// The state of the backlogs at one moment, by which the claim loop chooses a lane.
pub(super) struct Survey {
    lanes: HashMap<LaneKey, Standing>,
    /// Rows that wait, for each model that has any.
    models: HashMap<Arc<str>, usize>,
    /// How many rows to claim of a lane that has no backlog here.
    first: usize,
    /// With so many rows of a model waiting, its lapsed leases are left to other daemons.
    enough: usize,
}

struct Standing {
    waiting: usize,
    /// An estimate of the rows that begin in a second, and what the backlog is filled up to.
    rows_a_second: usize,
}

impl Backlogs {
    /// Adds leased rows to the backlog of their lane, and returns it.
    pub(super) fn add(&self, batch: BatchId, model: &str, rows: usize) -> Arc<Backlog> {
        let mut lanes = self.lock();
        lanes.retain(|_, backlog| backlog.strong_count() > 0);
        let known = lanes.entry((batch, model.into())).or_default();
        let backlog = known.upgrade().unwrap_or_else(|| {
            let backlog = Arc::new(Backlog::new(self.short.clone()));
            *known = Arc::downgrade(&backlog);
            backlog
        });
        backlog.waiting.fetch_add(rows, Relaxed);
        backlog
    }

    /// The state of the backlogs under a limit of `permits`. A lane is filled up with the rows of about a second, and
    /// at least with its equal part of four rows for each permit.
    pub(super) fn survey(&self, permits: usize) -> Survey {
        let held: Vec<_> = {
            let lanes = self.lock();
            lanes.iter().filter_map(|(lane, backlog)| Some((lane.clone(), backlog.upgrade()?))).collect()
        };
        let part_of = |lanes: usize| (permits * 4 / lanes.max(1)).max(MIN_LEASE);
        let (first, enough) = (part_of(held.len() + 1), part_of(1));
        let mut survey = Survey { lanes: HashMap::new(), models: HashMap::new(), first, enough };
        let least = part_of(held.len());
        for (lane, backlog) in held {
            let rows_a_second = backlog.rows_a_second().max(least);
            // Stored before the waiting rows are counted: rows that begin in between notify the claim loop.
            backlog.mark.store(rows_a_second / 2 + 1, SeqCst);
            let waiting = backlog.waiting.load(SeqCst);
            if waiting > 0 {
                *survey.models.entry(lane.1.clone()).or_default() += waiting;
            }
            survey.lanes.insert(lane, Standing { waiting, rows_a_second });
        }
        survey
    }

    /// Waits until a backlog is short. Returns at once if one became short since the last call.
    pub(super) async fn until_short(&self) {
        self.short.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LaneKey, Weak<Backlog>>> {
        lock(&self.lanes)
    }
}

impl Survey {
    /// How many rows to claim of a lane; `None` if it has enough, or if too many models have rows waiting.
    pub(super) fn wanted(&self, lane: &OpenLane) -> Option<u32> {
        let rows = self.wanted_of(lane.batch_id, &lane.model)?;
        Some(u32::try_from(rows.min(MAX_LEASE)).expect("bounded").min(lane.waiting()))
    }

    /// Whether to take over a lease of a lane. A lapsed lease has any number of rows up to the largest, so it is left
    /// to other daemons if enough rows of its model wait here.
    pub(super) fn takes_over(&self, batch: BatchId, model: &Arc<str>) -> bool {
        self.models.get(model).is_none_or(|waiting| *waiting < self.enough) && self.wanted_of(batch, model).is_some()
    }

    fn wanted_of(&self, batch: BatchId, model: &Arc<str>) -> Option<usize> {
        if self.models.len() >= MODELS && !self.models.contains_key(model) {
            return None;
        }
        match self.lanes.get(&(batch, model.clone())) {
            Some(Standing { waiting, rows_a_second }) => (*waiting < rows_a_second / 2 + 1).then_some(*rows_a_second),
            None => Some(self.first),
        }
    }

    /// How many rows wait here of the lane's model, and how many of the lane itself.
    pub(super) fn waiting(&self, lane: &OpenLane) -> (usize, usize) {
        let of_lane = self.lanes.get(&(lane.batch_id, lane.model.clone())).map_or(0, |standing| standing.waiting);
        (self.models.get(&lane.model).copied().unwrap_or(0), of_lane)
    }
}

impl Backlog {
    fn new(short: Arc<Notify>) -> Self {
        let reads = Arc::new(Semaphore::new(READS_AHEAD));
        let (waiting, begun, mark) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { waiting, begun, mark, pace: Mutex::new(Pace::new()), reads, short }
    }

    /// Waits for a place for the rows of one more read. The last of them gives it back.
    pub(super) async fn room(&self) -> Arc<OwnedSemaphorePermit> {
        Arc::new(self.reads.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Turns one of the waiting rows into a value that takes itself off the backlog.
    pub(super) fn row(self: &Arc<Self>) -> Waiting {
        Waiting { backlog: Some(self.clone()), batch_created_at: None }
    }

    /// Takes rows off the backlog.
    pub(super) fn let_go(&self, rows: usize) {
        let before = self.waiting.fetch_sub(rows, SeqCst);
        let mark = self.mark.load(SeqCst);
        // Only the row that makes it short notifies: this runs for every row.
        if before >= mark && before - rows < mark {
            self.short.notify_one();
        }
    }

    fn rows_a_second(&self) -> usize {
        lock(&self.pace).rows_a_second(self.begun.load(Relaxed))
    }
}

impl Waiting {
    /// The same as the first row of its batch, if the time is given when that was created.
    pub(super) fn first_of_batch(mut self, batch_created_at: Option<Timestamp>) -> Self {
        self.batch_created_at = batch_created_at;
        self
    }

    /// Counts the row as begun, at its first attempt.
    pub(super) fn begin(&mut self, now: Timestamp) {
        let Some(backlog) = self.backlog.take() else { return };
        backlog.begun.fetch_add(1, Relaxed);
        backlog.let_go(1);
        if let Some(created_at) = self.batch_created_at {
            metrics::first_call_begins(now.since(created_at));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(backlog) = self.backlog.take() {
            backlog.let_go(1);
        }
    }
}

/// How many rows of a lane begin in a second.
struct Pace {
    rows_a_second: f64,
    /// When the pace was measured last, and how many rows had begun then.
    measured: (Instant, usize),
}

impl Pace {
    fn new() -> Self {
        Self { rows_a_second: 0.0, measured: (Instant::now(), 0) }
    }

    fn rows_a_second(&mut self, begun: usize) -> usize {
        const WINDOW: Duration = Duration::from_millis(100);
        let (since, before) = self.measured;
        let elapsed = since.elapsed();
        if elapsed >= WINDOW {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let measured = (begun - before) as f64 / elapsed.as_secs_f64();
            self.rows_a_second = self.rows_a_second.midpoint(measured);
            self.measured = (Instant::now(), begun);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate, and not negative")]
        let pace = self.rows_a_second as usize;
        pace
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::time::Timestamp;

    const PERMITS: usize = 100;

    fn lane(batch_id: BatchId, model: &str) -> OpenLane {
        OpenLane { batch_id, no: 0, model: model.into(), next: 0, last: 5_000, expires_at: Timestamp(0) }
    }

    #[test]
    fn a_lane_whose_rows_do_not_begin_keeps_no_other_from_being_claimed() {
        let backlogs = Backlogs::default();
        let (stuck, other) = (lane(BatchId::new(), "a"), lane(BatchId::new(), "b"));
        assert_eq!(backlogs.survey(PERMITS).wanted(&stuck), Some(400), "alone it has four rows for each call");

        let _stuck = backlogs.add(stuck.batch_id, "a", 400);

        let survey = backlogs.survey(PERMITS);
        assert_eq!((survey.wanted(&stuck), survey.wanted(&other)), (None, Some(200)));
        assert_eq!((survey.waiting(&stuck), survey.waiting(&other)), ((400, 400), (0, 0)));
    }

    #[test]
    fn a_backlog_is_short_when_half_of_it_has_begun_and_says_so_once() {
        let backlogs = Backlogs::default();
        let open = lane(BatchId::new(), "a");
        let backlog = backlogs.add(open.batch_id, "a", 400);
        assert_eq!(backlogs.survey(PERMITS).wanted(&open), None);
        let rows: Vec<Waiting> = (0..400).map(|_| backlog.row()).collect();
        let mut begun = 0;
        let mut told = 0;

        for mut row in rows {
            row.begin(Timestamp(0));
            row.begin(Timestamp(0));
            begun += 1;
            if backlogs.until_short().now_or_never().is_some() {
                told += 1;
                assert_eq!(begun, 200);
            }
        }

        assert_eq!(told, 1);
        assert!(backlogs.survey(PERMITS).wanted(&open).is_some());
    }

    #[test]
    fn so_many_models_have_rows_waiting_and_no_more() {
        let backlogs = Backlogs::default();
        let held: Vec<_> = (0..MODELS).map(|no| backlogs.add(BatchId::new(), &no.to_string(), 1)).collect();
        let (known, new) = (lane(BatchId::new(), "0"), lane(BatchId::new(), "new"));

        let survey = backlogs.survey(PERMITS);
        assert_eq!((survey.wanted(&known), survey.wanted(&new)), (Some(16), None));

        held[0].let_go(1);
        assert_eq!(
            backlogs.survey(PERMITS).wanted(&new),
            Some(16),
            "a model all of whose rows have begun does not count"
        );
    }
}

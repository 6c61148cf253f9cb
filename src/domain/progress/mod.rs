//! How far a batch is, how fast it goes, when it will end, and why it does not go faster. Everything follows from the
//! batch, its statistics and what the daemons tell; nothing here depends on how many rows there are.

mod estimate;
mod reason;

use std::time::Duration;

use super::activity::{DaemonActivity, DaemonReport, ModelActivity};
use super::batch::{Batch, BatchStatus};
use super::ids::BatchId;
use super::project_limits::WaitingQueue;
use super::statistics::{BatchStatistics, RecordedRate};
use super::text_enum::text_enum;
use super::time::Timestamp;

pub use estimate::Estimate;
pub use reason::{ProgressReason, ReasonCode};

/// A daemon whose last heartbeat is older is not counted on: it beats every 800 ms.
const SILENT: Duration = Duration::from_secs(5);

text_enum! {
    /// What a batch is doing.
    pub enum Phase {
        /// Its input is being checked.
        Validating = "validating",
        /// No row of it is under way.
        Waiting = "waiting",
        /// Rows are under way.
        Running = "running",
        /// No row starts until it is resumed.
        Paused = "paused",
        /// No more rows start; the remaining lines are being written.
        Finalizing = "finalizing",
        /// It has ended.
        Ended = "ended",
    }
}

/// What is known of a batch and of those who run it.
pub struct ProgressFacts<'a> {
    /// The batch.
    pub batch: &'a Batch,
    /// What was recorded of it.
    pub statistics: &'a BatchStatistics,
    /// The models of its rows that have no result, those with the most rows first.
    pub models: &'a [String],
    /// What the daemons tell that the database has.
    pub reports: &'a [DaemonReport],
    /// The batches of its project that wait until there is room, if any do.
    pub queue: Option<&'a WaitingQueue>,
    /// The time.
    pub now: Timestamp,
}

/// The progress of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Where its rows are.
    pub rows: RowCounts,
    /// How fast rows were recorded in the last minute.
    pub rate: RecordedRate,
    /// When it will end; `None` if nothing is known about it, or if it has ended.
    pub estimate: Option<Estimate>,
    /// Whether it will end, or has ended, before its window closes; `None` if that is not known.
    pub will_meet_window: Option<bool>,
    /// Why it does not go faster, if it could.
    pub reason: Option<ProgressReason>,
}

/// Where the rows of a batch are. They add up to the total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// All rows.
    pub total: u64,
    /// Rows that were not begun.
    pub waiting: u64,
    /// Rows with a call under way, or whose result is about to be recorded.
    pub running: u64,
    /// Rows that wait for another attempt.
    pub retrying: u64,
    /// Rows that succeeded.
    pub completed: u64,
    /// Rows that failed.
    pub failed: u64,
}

/// What the daemons together do for a batch.
#[derive(Debug, Default)]
struct Efforts<'a> {
    /// Whether any daemon lives.
    has_daemon: bool,
    running: u64,
    retrying: u64,
    retrying_for: Option<&'a str>,
    last_begun: Option<Timestamp>,
    /// The state of each of the batch's models at each daemon.
    models: Vec<&'a ModelActivity>,
    /// The models of the batch that no upstream of any daemon has.
    unserved: Vec<&'a str>,
}

impl Progress {
    /// The progress that follows from the facts.
    #[must_use]
    pub fn of(facts: &ProgressFacts<'_>) -> Self {
        let batch = facts.batch;
        let efforts = Efforts::of(facts);
        let rows = efforts.row_counts(batch);
        let rate = facts.statistics.rate(facts.now);
        let phase = phase(batch, rows);
        let reason = reason::reason(facts, &efforts, rows, phase);
        let estimate = estimate::estimate(facts, &efforts, rows, reason.as_ref());
        let will_meet_window = match batch.status {
            BatchStatus::Completed => Some(true),
            BatchStatus::Expired => Some(false),
            _ => estimate.as_ref().and_then(|estimate| estimate.meets(batch.expires_at)),
        };
        Self { phase, rows, rate, estimate, will_meet_window, reason }
    }
}

fn phase(batch: &Batch, rows: RowCounts) -> Phase {
    match batch.status {
        _ if batch.pause.is_some() => Phase::Paused,
        BatchStatus::Validating => Phase::Validating,
        BatchStatus::InProgress if rows.running > 0 => Phase::Running,
        BatchStatus::InProgress => Phase::Waiting,
        BatchStatus::Finalizing | BatchStatus::Cancelling => Phase::Finalizing,
        BatchStatus::Failed | BatchStatus::Completed | BatchStatus::Expired | BatchStatus::Cancelled => Phase::Ended,
    }
}

impl<'a> Efforts<'a> {
    fn of(facts: &ProgressFacts<'a>) -> Self {
        let living: Vec<&DaemonActivity> = living(facts.reports).collect();
        let mut efforts = Self { has_daemon: !living.is_empty(), ..Self::default() };
        efforts.add_rows(&living, facts.batch.id);
        for model in facts.models {
            let of_model = || living.iter().flat_map(|daemon| &daemon.models).filter(|known| known.model == *model);
            let is_unserved = |daemon: &&DaemonActivity| daemon.unserved.contains(model);
            if of_model().all(|known| known.upstreams.is_empty()) && living.iter().any(is_unserved) {
                efforts.unserved.push(model);
            }
            efforts.models.extend(of_model());
        }
        efforts
    }

    fn add_rows(&mut self, living: &[&'a DaemonActivity], batch: BatchId) {
        let mut most = 0;
        for known in living.iter().flat_map(|daemon| &daemon.batches).filter(|known| known.id == batch) {
            self.running += known.running;
            self.retrying += known.retrying;
            self.last_begun = self.last_begun.max(known.last_begun);
            if known.retrying > most {
                (most, self.retrying_for) = (known.retrying, known.retrying_for.as_deref());
            }
        }
    }

    /// What daemons told a moment ago, made to fit what is recorded now.
    fn row_counts(&self, batch: &Batch) -> RowCounts {
        let owed = if batch.status == BatchStatus::InProgress { batch.counts.owed() } else { 0 };
        let running = self.running.min(owed);
        let retrying = self.retrying.min(owed - running);
        let never_ran = batch.counts.owed() - owed;
        RowCounts {
            total: batch.counts.total,
            waiting: owed - running - retrying + never_ran,
            running,
            retrying,
            completed: batch.counts.completed,
            failed: batch.counts.failed,
        }
    }
}

/// What the daemons do that live.
fn living(reports: &[DaemonReport]) -> impl Iterator<Item = &DaemonActivity> {
    reports.iter().filter(|report| report.age < SILENT).map(|report| &report.activity)
}

#[cfg(test)]
mod tests;

//! The recorder: makes outcomes durable, many at a time, with one part for each file and one transaction for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::ModelCourses;
use super::outbox::{Outbox, RowOutcome};
use crate::daemon::duties::FlushCounts;
use crate::daemon::leases::HeldLeases;
use crate::domain::failures::RowFailure;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, BlobId};
use crate::domain::lease::LeaseHold;
use crate::domain::statistics::RecordedRows;
use crate::domain::time::Clock;
use crate::storage::blobs::{BlobError, Blobs};
use crate::storage::group_commit::Weighed;
use crate::storage::{BatchFlush, Contradiction, Flush, Recorded, RecordedPart, Storage, StorageError, Violation};
use crate::telemetry::{chain, metrics};
use crate::wakeup::Wakeup;

/// Pauses between attempts to record the same flush. The last one repeats in an outage.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5)];

/// Splits outcomes by batch.
fn by_batch(outcomes: Vec<Weighed<RowOutcome>>) -> Vec<Vec<Weighed<RowOutcome>>> {
    let mut batches: BTreeMap<BatchId, Vec<Weighed<RowOutcome>>> = BTreeMap::new();
    for outcome in outcomes {
        batches.entry(outcome.row.id.batch).or_default().push(outcome);
    }
    batches.into_values().collect()
}

/// What the statistics of a batch have of outcomes.
fn recorded_rows(outcomes: &[&RowOutcome]) -> RecordedRows {
    let mut recorded = RecordedRows { rows: outcomes.len() as u64, ..RecordedRows::default() };
    for outcome in outcomes {
        match recorded.usage.get_mut(&*outcome.model) {
            Some(usage) => usage.add(outcome.usage),
            None => drop(recorded.usage.insert((*outcome.model).to_owned(), outcome.usage)),
        }
        if let Some(failure) = &outcome.failure {
            recorded.failures.add(RowFailure::clone(failure));
        }
    }
    recorded
}

/// Takes outcomes from the outbox and records them.
pub(in crate::daemon) struct Recorder<S> {
    pub(in crate::daemon) storage: Arc<S>,
    pub(in crate::daemon) blobs: Blobs,
    pub(in crate::daemon) clock: Clock,
    /// Counts flushes for the duty that merges parts.
    pub(in crate::daemon) flush_counts: Arc<FlushCounts>,
    /// Keeps the recent course of each model for the heartbeat.
    pub(in crate::daemon) courses: Arc<ModelCourses>,
    /// Halts the runs of leases whose outcomes are refused.
    pub(in crate::daemon) held: Arc<HeldLeases>,
    /// A batch is paused when so many of its rows failed alike; 0: never.
    pub(in crate::daemon) pause_after_alike: u64,
    /// Has the heartbeat look for batches that were paused.
    pub(in crate::daemon) wakeup: Wakeup,
}

impl<S: Storage> Recorder<S> {
    /// Records until the outbox is closed and everything in it is recorded.
    pub(in crate::daemon) async fn run(self, outbox: &Outbox) {
        while let Some(group) = outbox.next().await {
            self.flush(group.items).await;
            for done in group.settling {
                // An error says that the task which waited was dropped.
                let _ = done.send(());
            }
        }
    }

    /// Records outcomes, however many attempts it takes. It leaves out outcomes of lost leases, and those that
    /// contradict the ledger or that the database refuses. Their rows stay owed: the next holder of the lease reads
    /// from the ledger which these are.
    async fn flush(&self, outcomes: Vec<Weighed<RowOutcome>>) {
        let mut flushes = vec![outcomes];
        while let Some(outcomes) = flushes.pop() {
            flushes.extend(self.flush_together(outcomes).await);
        }
    }

    /// Records outcomes in one transaction. If the database refuses it, returns the outcomes of each batch, to be
    /// recorded by themselves: one batch must not keep the others from being recorded.
    async fn flush_together(&self, mut outcomes: Vec<Weighed<RowOutcome>>) -> Vec<Vec<Weighed<RowOutcome>>> {
        while !outcomes.is_empty() {
            let flush = self.until_done("written", || self.write_parts(&outcomes)).await;
            match self.record(&flush).await {
                Ok(Recorded::Applied) => {
                    self.note_recorded(&flush, &outcomes);
                    return Vec::new();
                }
                Ok(Recorded::LostLeases(lost)) => {
                    tracing::warn!(leases = lost.len(), "leases were lost; their new holders run their rows again");
                    self.leave_out(&mut outcomes, &lost);
                }
                Ok(Recorded::Violations(violations)) => {
                    let leases: Vec<LeaseHold> =
                        violations.iter().flat_map(|violation| violation.leases.clone()).collect();
                    self.leave_out(&mut outcomes, &leases);
                    self.repair_all(violations).await;
                }
                Err(_) if flush.batches.len() > 1 => return by_batch(outcomes),
                // The commit may have happened, so the parts stay; the duty `orphans` removes them if it has not.
                Err(_) => {
                    let leases: Vec<LeaseHold> = outcomes.iter().map(|outcome| outcome.row.lease).collect();
                    self.leave_out(&mut outcomes, &leases);
                    return Vec::new();
                }
            }
            self.remove_parts(&flush).await;
        }
        Vec::new()
    }

    /// Tells of a flush that is recorded.
    fn note_recorded(&self, flush: &Flush, outcomes: &[Weighed<RowOutcome>]) {
        metrics::flush_recorded(outcomes.len());
        self.courses.record(self.clock.now(), outcomes.iter().map(|outcome| &**outcome));
        flush.batches.keys().for_each(|batch| self.flush_counts.note(*batch));
        if self.pause_after_alike > 0 && flush.batches.values().any(|batch| batch.output.is_none()) {
            self.wakeup.wake();
        }
    }

    /// Records a flush, however long the database is away. An error is a refusal that has come after each pause.
    async fn record(&self, flush: &Flush) -> Result<Recorded, StorageError> {
        let mut pauses = PAUSES.iter();
        loop {
            // An outage does not count as a refusal.
            let attempt = async || match self.storage.record(flush, self.clock.now()).await {
                Err(error) if error.is_outage() => Err(error),
                answer => Ok(answer),
            };
            let error = match self.until_done("recorded", attempt).await {
                Ok(recorded) => return Ok(recorded),
                Err(error) => error,
            };
            metrics::flush_failed();
            let batches: Vec<String> = flush.batches.keys().map(ToString::to_string).collect();
            tracing::error!(batches = batches.join(", "), error = chain(&error), "the database refuses outcomes");
            let Some(pause) = pauses.next() else { return Err(error) };
            tokio::time::sleep(*pause).await;
        }
    }

    /// Drops the outcomes of leases and halts their runs.
    fn leave_out(&self, outcomes: &mut Vec<Weighed<RowOutcome>>, leases: &[LeaseHold]) {
        outcomes.retain(|outcome| !leases.contains(&outcome.row.lease));
        self.held.halt(leases);
    }

    async fn repair_all(&self, violations: Vec<Violation>) {
        for violation in violations {
            self.repair(violation).await;
        }
    }

    /// Reports a fault of this program, and counts the batch again by its ledger. Its leases are corrected when they
    /// are taken over.
    async fn repair(&self, Violation { batch, leases, what }: Violation) {
        metrics::ledger_violated();
        let named: Vec<String> =
            leases.iter().map(|lease| format!("{} with token {}", lease.id, lease.token)).collect();
        tracing::error!(
            batch_id = %batch,
            leases = named.join(", "),
            violation = %what,
            "outcomes contradict the ledger and are not recorded; their rows that have no line are run again"
        );
        if what == Contradiction::CountersPassTotal
            && let Err(error) = self.storage.recount(batch, self.clock.now()).await
        {
            tracing::error!(batch_id = %batch, error = chain(&error), "a batch could not be counted again");
        }
    }

    /// Repeats an action until it succeeds, with growing pauses.
    async fn until_done<T, E, F>(&self, what: &'static str, mut action: impl FnMut() -> F) -> T
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<T, E>>,
    {
        let mut pauses = PAUSES.iter().chain(std::iter::repeat(&PAUSES[PAUSES.len() - 1]));
        loop {
            match action().await {
                Ok(done) => return done,
                Err(error) => {
                    metrics::flush_failed();
                    tracing::error!(error = chain(&error), "outcomes could not be {what}; trying again");
                    tokio::time::sleep(*pauses.next().expect("endless")).await;
                }
            }
        }
    }

    /// Writes the lines as parts, one for each batch and file, all at once.
    async fn write_parts(&self, outcomes: &[Weighed<RowOutcome>]) -> Result<Flush, BlobError> {
        let mut batches: BTreeMap<BatchId, Vec<&RowOutcome>> = BTreeMap::new();
        for outcome in outcomes {
            batches.entry(outcome.row.id.batch).or_default().push(outcome);
        }
        let written = batches.into_iter().map(async |(batch, outcomes)| {
            let (output, error) =
                futures::try_join!(self.write_part(&outcomes, true), self.write_part(&outcomes, false))?;
            let mut flush = BatchFlush { output, error, statistics: recorded_rows(&outcomes), ..BatchFlush::default() };
            for outcome in outcomes {
                flush.usage.add(outcome.usage);
                let attempts = outcome.attempts.as_deref().cloned();
                flush.attempts.extend(attempts.map(|attempts| (outcome.row.id.row, attempts)));
                flush.leases.entry(outcome.row.lease).or_default().insert(outcome.row.id.row);
            }
            Ok::<_, BlobError>((batch, flush))
        });
        let batches = futures::future::try_join_all(written).await?.into_iter().collect();
        Ok(Flush { batches, pause_after_alike: self.pause_after_alike })
    }

    async fn write_part(&self, outcomes: &[&RowOutcome], success: bool) -> Result<Option<RecordedPart>, BlobError> {
        let mine = || outcomes.iter().filter(|outcome| outcome.failure.is_none() == success);
        let mut bytes = Vec::with_capacity(mine().map(|outcome| outcome.line.len()).sum());
        for outcome in mine() {
            bytes.extend_from_slice(&outcome.line);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let size = bytes.len() as u64;
        let rows = mine().map(|outcome| outcome.row.id.row).collect();
        let lines = mine().count() as u64;
        let blob = self.blobs.put(bytes).await?;
        Ok(Some(RecordedPart { part: FilePart { blob, bytes: size }, lines, rows }))
    }

    async fn remove_parts(&self, flush: &Flush) {
        let parts = flush.batches.values().flat_map(|batch| [&batch.output, &batch.error]).flatten();
        let blobs: Vec<BlobId> = parts.map(|part| part.part.blob).collect();
        for blob in blobs {
            if let Err(error) = self.blobs.delete(blob).await {
                tracing::warn!(error = chain(&error), "a part that was not recorded could not be removed");
            }
        }
    }
}

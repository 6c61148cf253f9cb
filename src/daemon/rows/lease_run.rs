//! Running one lease: its rows are read and queued as workers take them, and what did not run is given back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use serde::de::Error as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::backlog::Backlog;
use super::queue::{Cancellation, QueuedRow};
use super::{ClaimedRow, Supply, unreadable};
use crate::daemon::core::DaemonCore;
use crate::daemon::leases::RunTokens;
use crate::daemon::recording::RowOutcome;
use crate::daemon::timer::DutyError;
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::RequestId;
use crate::domain::index::{self, IndexEntry};
use crate::domain::lease::Lease;
use crate::domain::outcome::FailureReason;
use crate::domain::request::{Pending, Request, RequestData};
use crate::domain::row::RowCall;
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;
use crate::storage::blobs::BlobError;
use crate::storage::rows::{READ_BYTES, RowReader};
use crate::storage::{Storage, StorageError};
use crate::telemetry::chain;
use crate::upstream::CallHistory;

/// How often a row may run in quarantine and have its daemon die. After that it fails as a poison row.
const MAX_QUARANTINE_TRIES: u32 = 3;
/// A daemon tries no row of a quarantined lease before it has run for so long: what kills daemons at their start is no
/// row's fault.
const MIN_UPTIME: Duration = Duration::from_secs(2);
/// Reads under way, so that starting rows does not wait for the disk.
const READS_AHEAD: usize = 2;

/// Runs a lease to its end, or until one of the tokens ends it. `backlog` counts all of its rows.
pub(super) async fn run<S: Storage>(supply: Arc<Supply<S>>, lease: Lease, tokens: RunTokens, backlog: Arc<Backlog>) {
    let mut run = LeaseRun {
        not_queued: (lease.last - lease.first) as usize,
        batch_created_at: None,
        model: lease.model.as_str().into(),
        open: TaskTracker::new(),
        cancellation: Arc::new(Cancellation { tokens, abort: supply.shared.shutdown.abort.clone() }),
        backlog,
        lease,
        supply: supply.clone(),
    };
    // A panic counts as a failure, so that the lease ends.
    let started = AssertUnwindSafe(run.start_rows()).catch_unwind().await;
    if let Err(error) = started.unwrap_or_else(|_| Err("reading its rows panicked".into())) {
        // The rows stay in the backlog until the lease is given back, so that the loop claims no more of the lane.
        unreadable::lease_failed(&supply.shared, &supply.unreadable, &run.lease, error, &run.cancellation).await;
    }
    run.end().await;
}

struct LeaseRun<S> {
    supply: Arc<Supply<S>>,
    lease: Lease,
    cancellation: Arc<Cancellation>,
    model: Arc<str>,
    /// One token for each row that waits in the queue or that a worker has.
    open: TaskTracker,
    backlog: Arc<Backlog>,
    /// Rows of the backlog that have not been handed to the queue.
    not_queued: usize,
    /// When the batch was created, until its first row is handed to the queue.
    batch_created_at: Option<Timestamp>,
}

impl<S: Storage> LeaseRun<S> {
    async fn start_rows(&mut self) -> Result<(), DutyError> {
        let supply = self.supply.clone();
        let input = supply.shared.storage.any_batch_input(self.lease.batch_id).await?;
        let input = input.ok_or("the batch's input file is not in the database")?;
        let reader = RowReader::new(supply.shared.blobs.clone(), input);
        let entries = self.owed_entries(&reader).await?;
        // If a holder before has recorded a row, the batch's first call was made.
        let is_first = self.lease.first == 0 && entries.len() == self.lease.last as usize;
        self.batch_created_at = is_first.then_some(reader.input().created_at);
        // A row that killed the holder was one of those under way, which are among the first of those that are owed.
        let quarantined =
            if self.lease.is_quarantined() { entries.len().min(supply.shared.settings.max_concurrency) } else { 0 };
        for entry in &entries[..quarantined] {
            if !self.run_in_quarantine(&reader, entry).await? {
                return Ok(());
            }
        }
        let entries = &entries[quarantined..];
        let (slices, backlog, reader) =
            (stream::iter(index::slices(entries, READ_BYTES)), self.backlog.clone(), &reader);
        let mut reads = slices
            .map(|slice| {
                let backlog = &backlog;
                async move {
                    let place = backlog.room().await;
                    Ok::<_, BlobError>((reader.lines(&entries[slice]).await?, place))
                }
            })
            .buffered(READS_AHEAD);
        loop {
            let read = tokio::select! {
                biased;
                () = self.cancellation.cancelled() => return Ok(()),
                read = reads.try_next() => read?,
            };
            let Some((lines, place)) = read else { return Ok(()) };
            supply.unreadable.went_well(self.lease.batch_id);
            self.open_rows(reader, lines, &place).await;
        }
    }

    /// Runs one row in quarantine and has it recorded, while this daemon runs no other row in quarantine. Fails it as a
    /// poison row if its daemon died too often. False if this daemon must not run the lease any more.
    async fn run_in_quarantine(&mut self, reader: &RowReader, entry: &IndexEntry) -> Result<bool, DutyError> {
        let supply = self.supply.clone();
        let _quarantine = tokio::select! {
            biased;
            () = self.cancellation.cancelled() => return Ok(false),
            permit = supply.quarantine.acquire() => permit,
        };
        tokio::select! {
            biased;
            () = self.cancellation.cancelled() => return Ok(false),
            () = tokio::time::sleep_until(supply.shared.started + MIN_UPTIME) => {}
        }
        let lines = reader.lines(std::slice::from_ref(entry)).await?;
        let Some(tries) = supply.shared.storage.try_in_quarantine(self.lease.hold()).await? else { return Ok(false) };
        if tries > MAX_QUARANTINE_TRIES {
            self.fail_poison_row(lines).await;
        } else {
            tracing::warn!(lease_id = %self.lease.id, row = entry.row, tries, "a row runs in quarantine");
            let place = self.backlog.room().await;
            self.open_rows(reader, lines, &place).await;
        }
        self.open.close();
        tokio::select! {
            () = self.open.wait() => {}
            () = self.cancellation.cancelled() => return Ok(false),
        }
        self.open.reopen();
        supply.outbox.flush().await;
        Ok(true)
    }

    /// Records a poison row as failed.
    async fn fail_poison_row(&mut self, lines: Vec<(u32, Bytes)>) {
        self.backlog.let_go(lines.len());
        self.not_queued -= lines.len();
        for (row, line) in lines {
            let id = RequestId { batch: self.lease.batch_id, row };
            tracing::error!(request_id = %id, "a row is failed: its worker died each time it ran in quarantine");
            let custom_id = serde_json::from_slice::<RowCall<'_>>(&line).map(|call| call.custom_id.into_owned());
            let row = ClaimedRow { id, lease: self.lease.hold() };
            self.fail(row, &custom_id.unwrap_or_default(), &FailureReason::WorkerDied(MAX_QUARANTINE_TRIES)).await;
        }
    }

    /// Records a row as failed that made no call.
    async fn fail(&self, row: ClaimedRow, custom_id: &str, reason: &FailureReason) {
        let outcome = RowOutcome::failed(row, self.model.clone(), custom_id, reason, Usage::default());
        self.supply.outbox.push(outcome).await;
    }

    /// The rows of the lease that are owed. The ledger has rows only of a lease that was held before.
    async fn owed_entries(&mut self, reader: &RowReader) -> Result<Vec<IndexEntry>, DutyError> {
        let mut entries = reader.entries(self.lease.first..self.lease.last).await?;
        if self.lease.token > 1 {
            let recorded = self.supply.shared.storage.recorded_rows(self.lease.batch_id).await?;
            entries.retain(|entry| !recorded.contains(entry.row));
            let owed = u32::try_from(entries.len()).expect("a lease has no more rows than its range");
            if owed == 0 || owed != self.lease.owed {
                self.correct_owed(owed).await?;
            }
            self.backlog.let_go(self.not_queued - entries.len());
            self.not_queued = entries.len();
        }
        Ok(entries)
    }

    /// Sets what the lease says it owes to what the ledger says.
    async fn correct_owed(&self, owed: u32) -> Result<(), StorageError> {
        let Lease { id: lease_id, batch_id, owed: counted, .. } = self.lease;
        tracing::error!(
            %lease_id, %batch_id, counted, owed,
            "a lease did not count what it owes as its ledger does; the ledger holds"
        );
        let DaemonCore { storage, clock, .. } = &*self.supply.shared;
        storage.correct_owed(self.lease.hold(), owed).await?;
        // The batch's counters may be wrong too, and a lease that owes nothing records nothing that would show it.
        storage.recount(batch_id, clock.now()).await?;
        Ok(())
    }

    /// Hands the rows of one read to the workers.
    async fn open_rows(&mut self, reader: &RowReader, lines: Vec<(u32, Bytes)>, place: &Arc<OwnedSemaphorePermit>) {
        self.not_queued -= lines.len();
        let mut rows = Vec::with_capacity(lines.len());
        for (row, line) in lines {
            let id = RequestId { batch: self.lease.batch_id, row };
            let row = ClaimedRow { id, lease: self.lease.hold() };
            let waiting = self.backlog.row();
            match self.request(reader, id, &line) {
                Ok(request) => rows.push(QueuedRow {
                    row,
                    request,
                    cancellation: self.cancellation.clone(),
                    waiting: waiting.first_of_batch(self.batch_created_at.take()),
                    place: Some(place.clone()),
                    share: None,
                    route: None,
                    history: CallHistory::of_batch(reader.input().has_completed),
                    attempts: None,
                    parked: None,
                    retrying: None,
                    open: self.open.token(),
                }),
                Err(error) => {
                    let reason = FailureReason::InvalidRow(format!("The row cannot be read back: {error}."));
                    self.fail(row, "", &reason).await;
                }
            }
        }
        self.supply.queue.push(rows);
    }

    fn request(&self, reader: &RowReader, id: RequestId, line: &Bytes) -> serde_json::Result<Request<Pending>> {
        let call: RowCall<'_> = serde_json::from_slice(line)?;
        let endpoint = match reader.input().endpoint {
            BatchEndpoint::One(endpoint) => endpoint,
            // It was an endpoint when the file was taken in.
            BatchEndpoint::Any => {
                Endpoint::named(&call.url).ok_or_else(|| serde_json::Error::custom("its url is no endpoint"))?
            }
        };
        Ok(Request::new(RequestData {
            id,
            owner: reader.input().owner.clone(),
            custom_id: call.custom_id.into_owned(),
            endpoint,
            model: self.model.clone(),
            body: line.slice_ref(call.body.get().as_bytes()),
            metadata: reader.input().metadata.clone(),
            expires_at: reader.input().expires_at,
        }))
    }

    /// Waits for the rows that were begun, has their outcomes recorded, and gives the lease back. A lease whose every
    /// row is recorded is gone from the database before that.
    async fn end(self) {
        let supply = &self.supply;
        self.open.close();
        tokio::select! {
            () = self.open.wait() => self.backlog.let_go(self.not_queued),
            () = self.cancellation.cancelled() => {
                // Rows that no worker has taken stay owed; the calls under way end or are aborted. The lane may be
                // claimed on meanwhile: a batch that was paused can be resumed while the last of its calls runs.
                supply.queue.leave(self.lease.hold());
                self.backlog.let_go(self.not_queued);
                self.open.wait().await;
            }
        }
        supply.outbox.flush().await;
        if let Err(error) = supply.shared.storage.give_back(self.lease.hold()).await {
            // The heartbeat finds that no task runs the lease, and tries again.
            tracing::error!(lease_id = %self.lease.id, error = chain(&error), "a lease could not be given back");
        }
        supply.held.end(self.lease.hold());
        supply.shared.wakeup.wake();
    }
}

//! Making outcomes durable, many at a time: one part for each file, one transaction for all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::attempt::Row;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, BlobId, LeaseId};
use crate::domain::time::Clock;
use crate::domain::usage::Usage;
use crate::storage::blobs::{BlobError, Blobs};
use crate::storage::{BatchFlush, Flush, Recorded, RecordedPart, Storage};
use crate::telemetry::chain;
use crate::telemetry::metrics;

/// How long an outcome waits for others to share its commit.
const GATHER: Duration = Duration::from_millis(250);
/// A flush this large goes out at once.
const FLUSH_BYTES: usize = 8 << 20;
/// Lines that wait to be recorded, in KiB: what bounds memory when the storage is slower than the upstream.
const ROOM_KIB: usize = 64 << 10;
/// Outcomes on their way to the recorder.
const QUEUE: usize = 4096;
/// Pauses between attempts to record the same flush.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5)];

enum Message {
    Outcome(Outcome),
    /// Record what came before this, then answer.
    Settle(oneshot::Sender<()>),
}

struct Outcome {
    row: Row,
    is_success: bool,
    line: Vec<u8>,
    usage: Usage,
    /// Given back when the line is durable.
    _room: OwnedSemaphorePermit,
}

/// Where outcomes are handed in. Cheap to clone; the recorder ends when the last clone is gone.
#[derive(Clone)]
pub(super) struct Outcomes {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
}

impl Outcomes {
    /// Hands in a success. The call's permit is given back as soon as there is room for the line.
    pub(super) async fn completed(&self, row: &Row, line: Vec<u8>, usage: Usage, call: OwnedSemaphorePermit) {
        let room = self.room_for(&line).await;
        drop(call);
        self.send(Outcome { row: *row, is_success: true, line, usage, _room: room }).await;
    }

    /// Hands in a failure.
    pub(super) async fn failed(&self, row: &Row, line: Vec<u8>) {
        let room = self.room_for(&line).await;
        self.send(Outcome { row: *row, is_success: false, line, usage: Usage::default(), _room: room }).await;
    }

    /// Returns when everything that was handed in before is recorded.
    pub(super) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        if self.queue.send(Message::Settle(done)).await.is_ok() {
            let _ = settled.await;
        }
    }

    async fn room_for(&self, line: &[u8]) -> OwnedSemaphorePermit {
        let kib = u32::try_from((line.len() / 1024 + 1).min(ROOM_KIB)).expect("bounded");
        self.room.clone().acquire_many_owned(kib).await.expect("the semaphore is never closed")
    }

    async fn send(&self, outcome: Outcome) {
        // The recorder outlives every sender.
        let _ = self.queue.send(Message::Outcome(outcome)).await;
    }
}

/// Starts a recorder. It ends when every [`Outcomes`] is gone and all they handed in is recorded.
pub(super) fn start<S: Storage>(storage: Arc<S>, blobs: Blobs, clock: Clock) -> (Outcomes, JoinHandle<()>) {
    let (queue, arriving) = mpsc::channel(QUEUE);
    let recorder = Recorder { storage, blobs, clock };
    let task = tokio::spawn(recorder.run(arriving));
    (Outcomes { queue, room: Arc::new(Semaphore::new(ROOM_KIB)) }, task)
}

struct Recorder<S> {
    storage: Arc<S>,
    blobs: Blobs,
    clock: Clock,
}

impl<S: Storage> Recorder<S> {
    async fn run(self, mut arriving: mpsc::Receiver<Message>) {
        while let Some(first) = arriving.recv().await {
            let (outcomes, settling) = gather(first, &mut arriving).await;
            self.flush(outcomes).await;
            for done in settling {
                // Nobody waits any more if the lease's task was dropped.
                let _ = done.send(());
            }
        }
    }

    /// Records outcomes, however often it takes. Only those of lost leases are left out.
    async fn flush(&self, mut outcomes: Vec<Outcome>) {
        while !outcomes.is_empty() {
            let flush = self.until_done("written", || self.write_parts(&outcomes)).await;
            let recorded = self.until_done("recorded", || self.storage.record(&flush, self.clock.now())).await;
            match recorded {
                Recorded::Applied => {
                    metrics::flush_recorded(outcomes.len());
                    return;
                }
                Recorded::LostLeases(lost) => {
                    tracing::warn!(leases = lost.len(), "leases were lost; their new holders run their rows again");
                    outcomes.retain(|outcome| !lost.contains(&outcome.row.lease));
                    self.remove_parts(&flush).await;
                }
            }
        }
    }

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
    async fn write_parts(&self, outcomes: &[Outcome]) -> Result<Flush, BlobError> {
        let mut batches: BTreeMap<BatchId, Vec<&Outcome>> = BTreeMap::new();
        for outcome in outcomes {
            batches.entry(outcome.row.id.batch).or_default().push(outcome);
        }
        let written = batches.into_iter().map(async |(batch, outcomes)| {
            let (output, error) =
                futures::try_join!(self.write_part(&outcomes, true), self.write_part(&outcomes, false))?;
            let mut usage = Usage::default();
            let mut leases: BTreeMap<LeaseId, (i64, u32)> = BTreeMap::new();
            for outcome in outcomes {
                usage.add(outcome.usage);
                leases.entry(outcome.row.lease).or_insert((outcome.row.token, 0)).1 += 1;
            }
            Ok::<_, BlobError>((batch, BatchFlush { output, error, usage, leases }))
        });
        Ok(Flush { batches: futures::future::try_join_all(written).await?.into_iter().collect() })
    }

    async fn write_part(&self, outcomes: &[&Outcome], success: bool) -> Result<Option<RecordedPart>, BlobError> {
        let mine = || outcomes.iter().filter(|outcome| outcome.is_success == success);
        let mut bytes = Vec::with_capacity(mine().map(|outcome| outcome.line.len()).sum());
        for outcome in mine() {
            bytes.extend_from_slice(&outcome.line);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let size = bytes.len() as u64;
        let rows = mine().map(|outcome| outcome.row.id.row).collect();
        let blob = self.blobs.put(bytes).await?;
        Ok(Some(RecordedPart { part: FilePart { blob, bytes: size }, rows }))
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

/// Collects outcomes until enough wait, the first has waited long enough, or somebody wants to see them settled.
async fn gather(first: Message, arriving: &mut mpsc::Receiver<Message>) -> (Vec<Outcome>, Vec<oneshot::Sender<()>>) {
    let mut outcomes = Vec::new();
    let mut settling = Vec::new();
    let mut bytes = 0;
    let deadline = Instant::now() + GATHER;
    let mut next = Some(first);
    while let Some(message) = next {
        match message {
            Message::Outcome(outcome) => {
                bytes += outcome.line.len();
                outcomes.push(outcome);
            }
            Message::Settle(done) => settling.push(done),
        }
        next = if bytes >= FLUSH_BYTES {
            None
        } else if settling.is_empty() {
            tokio::time::timeout_at(deadline, arriving.recv()).await.ok().flatten()
        } else {
            // What is queued already shares the commit; nothing more is waited for.
            arriving.try_recv().ok()
        };
    }
    (outcomes, settling)
}

//! Steps on their way to the storage: gathered, so that those of many rows share one commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::storage::{StepStore, StepWrite, StorageError};
use crate::telemetry::chain;

/// Steps that wait to be kept: what bounds memory when the storage is slow.
const ROOM: usize = 4096;
/// Steps kept in one commit.
const TOGETHER: usize = 256;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// Why a step is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotKept {
    /// The row is somebody else's now.
    LeaseLost,
    /// The storage cannot keep it, now or later.
    Refused(String),
}

/// Where steps are handed in. Whatever is handed in is kept in that order.
#[derive(Clone)]
pub struct StepLog(mpsc::Sender<Entry>);

struct Entry {
    write: StepWrite,
    kept: Option<Kept>,
}

/// Who waits for a step to be kept.
type Kept = oneshot::Sender<Result<(), NotKept>>;

impl StepLog {
    /// Keeps steps in `storage`, in a task that ends when nobody can hand in any more.
    #[must_use]
    pub fn start<S: StepStore + Send + Sync + 'static>(storage: Arc<S>) -> Self {
        let (log, mut entries) = mpsc::channel(ROOM);
        tokio::spawn(async move {
            let mut together = Vec::with_capacity(TOGETHER);
            while entries.recv_many(&mut together, TOGETHER).await > 0 {
                keep(&*storage, std::mem::take(&mut together)).await;
            }
        });
        Self(log)
    }

    /// Hands in a step that has begun. Whether it is kept does not matter before it has ended.
    pub(super) async fn begun(&self, write: StepWrite) {
        // An error: the task has panicked, which whoever hands in an end learns too.
        let _ = self.0.send(Entry { write, kept: None }).await;
    }

    /// Hands in a step that has ended, and returns once it is durable.
    pub(super) async fn ended(&self, write: StepWrite) -> Result<(), NotKept> {
        let (done, kept) = oneshot::channel();
        let gone = || NotKept::Refused("nobody keeps steps any more".to_owned());
        self.0.send(Entry { write, kept: Some(done) }).await.map_err(|_| gone())?;
        kept.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Keeps entries together, or if the storage refuses one of them, one by one.
async fn keep(storage: &impl StepStore, entries: Vec<Entry>) {
    let (writes, kept): (Vec<_>, Vec<_>) = entries.into_iter().map(|entry| (entry.write, entry.kept)).unzip();
    match record(storage, &writes).await {
        Ok(results) => kept.into_iter().zip(results).for_each(tell),
        Err(_) if writes.len() > 1 => {
            for (write, kept) in writes.into_iter().zip(kept) {
                let result = match record(storage, &[write]).await {
                    Ok(mut results) => results.pop().expect("one for each write"),
                    Err(error) => Err(NotKept::Refused(error)),
                };
                tell((kept, result));
            }
        }
        Err(error) => kept.into_iter().for_each(|kept| tell((kept, Err(NotKept::Refused(error.clone()))))),
    }
}

fn tell((kept, result): (Option<Kept>, Result<(), NotKept>)) {
    if let Some(kept) = kept {
        // An error: the row was called off meanwhile.
        let _ = kept.send(result);
    }
}

/// Keeps writes in one commit, however long the storage is out of reach. An error is one that would not pass.
async fn record(storage: &impl StepStore, writes: &[StepWrite]) -> Result<Vec<Result<(), NotKept>>, String> {
    loop {
        match storage.record_steps(writes).await {
            Ok(lost) => {
                let result =
                    |write: &StepWrite| if lost.contains(&write.lease) { Err(NotKept::LeaseLost) } else { Ok(()) };
                return Ok(writes.iter().map(result).collect());
            }
            Err(error @ (StorageError::Internal(_) | StorageError::Corrupt { .. })) => {
                return Err(chain(&error));
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "steps could not be kept; trying again");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_trait::async_trait;

    use super::*;
    use crate::domain::ids::{BatchId, LeaseId, RequestId};
    use crate::domain::lease::FencedLease;
    use crate::domain::response::{Step, StepBody, StepPath, StepState};
    use crate::domain::time::Timestamp;
    use crate::storage::Result as StorageResult;

    /// Refuses whatever row 1 is among, and has lost the lease of row 2.
    struct Picky;

    #[async_trait]
    impl StepStore for Picky {
        async fn record_steps(&self, writes: &[StepWrite]) -> StorageResult<BTreeSet<FencedLease>> {
            if writes.iter().any(|write| write.row.row == 1) {
                return Err(StorageError::Corrupt { table: "t", column: "c", id: "i".to_owned() });
            }
            Ok(writes.iter().filter(|write| write.row.row == 2).map(|write| write.lease).collect())
        }

        async fn steps(&self, _row: RequestId) -> StorageResult<Vec<Step>> {
            Ok(Vec::new())
        }

        async fn forget_steps(&self, _ended_before: Timestamp, _rows: u32) -> StorageResult<u64> {
            Ok(0)
        }
    }

    fn entry(row: u32) -> (Entry, oneshot::Receiver<Result<(), NotKept>>) {
        let step = Step {
            seq: 0,
            path: StepPath::root().child(0),
            body: StepBody::ModelCall(None),
            state: StepState::Completed,
            attempts: 1,
            error: None,
            started_at: Timestamp(0),
            ended_at: None,
        };
        let row = RequestId { batch: BatchId::new(), row };
        let (done, kept) = oneshot::channel();
        (
            Entry {
                write: StepWrite { row, lease: FencedLease { id: LeaseId::new(), token: 1 }, step },
                kept: Some(done),
            },
            kept,
        )
    }

    #[tokio::test]
    async fn a_step_that_is_refused_harms_none_that_was_to_be_kept_with_it() {
        let (entries, kept): (Vec<_>, Vec<_>) = (0..3).map(entry).unzip();

        keep(&Picky, entries).await;

        let told = futures::future::join_all(kept).await.into_iter().map(|told| told.expect("everybody is told"));
        let told: Vec<_> = told.collect();
        assert_eq!(told[0], Ok(()));
        assert!(matches!(told[1], Err(NotKept::Refused(_))), "{told:?}");
        assert_eq!(told[2], Err(NotKept::LeaseLost));
    }
}

//! Steps on their way to the storage: gathered, so that those of many rows share one commit.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::storage::group_commit::{Gathering, GroupCommit};
use crate::storage::{StepStore, StepWrite, StorageError};
use crate::telemetry::chain;

/// Steps are kept as they come, with those that came while others were being kept. At most 4,096 wait, which bounds
/// memory when the storage is slow.
const GATHERING: Gathering = Gathering { longest: Duration::ZERO, due: 1, room: 4096 };
/// Steps kept in one commit.
const TOGETHER: usize = 256;
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// Why a step is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotKept {
    /// The row is not to be run here any more: its lease is lost, or nobody keeps steps, and the daemon stops.
    NotToBeRun,
    /// The storage cannot keep it, now or later.
    Refused(String),
}

/// Where steps are handed in. Whatever is handed in is kept in that order. Clones are the same log.
#[derive(Clone)]
pub struct StepLog(Arc<GroupCommit<Entry>>);

struct Entry {
    write: StepWrite,
    kept: Option<Kept>,
}

/// Who waits for a step to be kept.
type Kept = oneshot::Sender<Result<(), NotKept>>;

impl Default for StepLog {
    fn default() -> Self {
        Self(Arc::new(GroupCommit::new(GATHERING)))
    }
}

impl StepLog {
    /// Keeps steps in `storage` until the log is closed and everything in it is kept.
    pub(crate) async fn run(&self, storage: &impl StepStore) {
        while let Some(group) = self.0.next().await {
            let mut entries = group.items.into_iter().peekable();
            while entries.peek().is_some() {
                keep(storage, entries.by_ref().take(TOGETHER).map(|entry| entry.item).collect()).await;
            }
        }
    }

    /// Nothing more is handed in.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Nobody keeps steps any more.
    pub(crate) fn abandon(&self) {
        self.0.abandon();
    }

    /// Hands in a step that has begun. Whether it is kept does not matter before it has ended.
    pub(super) async fn begun(&self, write: StepWrite) {
        // An error: nobody keeps steps any more, which whoever hands in an end learns too.
        let _ = self.0.push(Entry { write, kept: None }, 1).await;
    }

    /// Hands in a step that has ended, and returns once it is durable.
    pub(super) async fn ended(&self, write: StepWrite) -> Result<(), NotKept> {
        let (done, kept) = oneshot::channel();
        self.0.push(Entry { write, kept: Some(done) }, 1).await.map_err(|_| NotKept::NotToBeRun)?;
        kept.await.unwrap_or(Err(NotKept::NotToBeRun))
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
                    |write: &StepWrite| if lost.contains(&write.lease) { Err(NotKept::NotToBeRun) } else { Ok(()) };
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
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::ids::{BatchId, LeaseId, RequestId};
    use crate::domain::lease::LeaseHold;
    use crate::domain::owner::Owner;
    use crate::domain::response::{Step, StepBody, StepPath, StepState};
    use crate::domain::time::Timestamp;
    use crate::storage::Result as StorageResult;

    /// Refuses whatever row 1 is among, and has lost the lease of row 2.
    struct Picky;

    #[async_trait]
    impl StepStore for Picky {
        async fn record_steps(&self, writes: &[StepWrite]) -> StorageResult<BTreeSet<LeaseHold>> {
            if writes.iter().any(|write| write.row.row == 1) {
                return Err(StorageError::Corrupt { table: "t", column: "c", id: "i".to_owned() });
            }
            Ok(writes.iter().filter(|write| write.row.row == 2).map(|write| write.lease).collect())
        }

        async fn steps(&self, _owner: &Owner, _row: RequestId) -> StorageResult<Vec<Step>> {
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
                write: StepWrite { row, lease: LeaseHold { id: LeaseId::new(), token: 1 }, step },
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
        assert_eq!(told[2], Err(NotKept::NotToBeRun));
    }

    #[tokio::test]
    async fn a_step_that_nobody_keeps_fails_no_row() {
        let log = StepLog::default();
        let mut waits = Box::pin(log.ended(entry(0).0.write));
        assert!(waits.as_mut().now_or_never().is_none(), "nobody has kept it");

        log.abandon();

        assert_eq!(waits.await, Err(NotKept::NotToBeRun));
        assert_eq!(log.ended(entry(0).0.write).await, Err(NotKept::NotToBeRun));
    }
}

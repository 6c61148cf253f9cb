//! Batches that wait until their project has room for them: how much room each needs, and whose turn it is.
//!
//! The size of a batch is remembered from one tick to the next, so that its input is read only when it is created and
//! when it is admitted. Nothing else depends on this memory: another daemon, or this one after a restart, finds the
//! same sizes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use crate::domain::batch::Batch;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::project_limits::QueuedInput;
use crate::sync::lock;

/// The batches that wait.
#[derive(Default)]
pub(super) struct WaitingBatches(Mutex<State>);

#[derive(Default)]
struct State {
    /// The sizes of the batches that waited at the end of the tick before.
    known: HashMap<BatchId, QueuedInput>,
    /// The queues of this tick: in the order of the ids, which is that of the creation.
    queues: BTreeMap<Owner, BTreeMap<BatchId, QueuedInput>>,
}

impl WaitingBatches {
    /// Begins a tick: no batch was seen.
    pub(super) fn begin(&self) {
        lock(&self.0).queues.clear();
    }

    /// Puts a batch into the queue of its project. False if its size is not known.
    pub(super) fn take_place(&self, batch: &Batch) -> bool {
        let size = lock(&self.0).known.get(&batch.id).copied();
        if let Some(size) = size {
            self.add(batch, size);
        }
        size.is_some()
    }

    /// Puts a batch of this size into the queue of its project.
    pub(super) fn add(&self, batch: &Batch, size: QueuedInput) {
        lock(&self.0).queues.entry(batch.owner.clone()).or_default().insert(batch.id, size);
    }

    /// The queue of each project, when all batches were seen. Batches that are in none are forgotten.
    pub(super) fn queues(&self) -> Vec<(Owner, Vec<(BatchId, QueuedInput)>)> {
        let mut state = lock(&self.0);
        let queues = std::mem::take(&mut state.queues);
        state.known = queues.values().flatten().map(|(id, size)| (*id, *size)).collect();
        queues.into_iter().map(|(project, queue)| (project, queue.into_iter().collect())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::batch::{BatchStatus, Counts, Milestones};
    use crate::domain::endpoint::Endpoint;
    use crate::domain::ids::FileId;
    use crate::domain::time::Timestamp;
    use crate::domain::usage::Usage;

    fn batch(owner: &str) -> Batch {
        Batch {
            id: BatchId::new(),
            owner: Owner::parse(owner).expect("an id"),
            input_file_id: String::new(),
            endpoint: Endpoint::ChatCompletions.into(),
            completion_window: "24h".to_owned(),
            status: BatchStatus::Validating,
            created_at: Timestamp(0),
            expires_at: Timestamp(0).plus(Duration::from_hours(24)),
            milestones: Milestones::default(),
            model: None,
            counts: Counts::default(),
            usage: Usage::default(),
            metadata: None,
            errors: Vec::new(),
            output_file_id: FileId::new(),
            error_file_id: FileId::new(),
            output_expires_after: None,
            pause: None,
            retry: None,
            webhook_url: None,
        }
    }

    #[test]
    fn a_size_is_known_for_as_long_as_its_batch_waits_and_queues_go_by_age() {
        let waiting = WaitingBatches::default();
        let (first, second, of_other) = (batch("one"), batch("one"), batch("other"));
        let size = |rows| QueuedInput { rows, bytes: 0 };
        let ids = |queues: Vec<(Owner, Vec<(BatchId, QueuedInput)>)>| {
            queues.into_iter().flat_map(|(_, queue)| queue).map(|(id, size)| (id, size.rows)).collect::<Vec<_>>()
        };

        assert!(!waiting.take_place(&first));
        waiting.add(&second, size(2));
        waiting.add(&of_other, size(3));
        waiting.add(&first, size(1));
        assert_eq!(ids(waiting.queues()), [(first.id, 1), (second.id, 2), (of_other.id, 3)]);

        waiting.begin();
        assert!(waiting.take_place(&second), "its input need not be read again");
        assert_eq!(ids(waiting.queues()), [(second.id, 2)]);
        waiting.begin();
        assert!(!waiting.take_place(&first), "one that waits no more is forgotten");
        assert!(waiting.take_place(&second));
        waiting.begin();
        assert!(ids(waiting.queues()).is_empty(), "what an interrupted tick has seen is forgotten");
    }
}

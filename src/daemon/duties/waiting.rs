//! Batches that wait until their project has room for them: how much room each needs, and whose turn it is.
//!
//! The size of a batch is remembered from one tick to the next, so that its input is read only when it is created and
//! when it is admitted. Nothing else depends on this memory: another daemon, or this one after a restart, finds the
//! same sizes again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

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
    pub(super) fn take_place(&self, project: &Owner, batch: BatchId) -> bool {
        let size = lock(&self.0).known.get(&batch).copied();
        if let Some(size) = size {
            self.add(project, batch, size);
        }
        size.is_some()
    }

    /// Puts a batch of this size into the queue of its project.
    pub(super) fn add(&self, project: &Owner, batch: BatchId, size: QueuedInput) {
        lock(&self.0).queues.entry(project.clone()).or_default().insert(batch, size);
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
    use super::*;

    #[test]
    fn a_size_is_known_for_as_long_as_its_batch_waits_and_queues_go_by_age() {
        let waiting = WaitingBatches::default();
        let [one, other] = ["one", "other"].map(|name| Owner::parse(name).expect("an id"));
        let [first, second, of_other] = [(); 3].map(|()| BatchId::new());
        let size = |rows| QueuedInput { rows, bytes: 0 };
        let ids = |queues: Vec<(Owner, Vec<(BatchId, QueuedInput)>)>| {
            queues.into_iter().flat_map(|(_, queue)| queue).map(|(id, size)| (id, size.rows)).collect::<Vec<_>>()
        };

        assert!(!waiting.take_place(&one, first));
        waiting.add(&one, second, size(2));
        waiting.add(&other, of_other, size(3));
        waiting.add(&one, first, size(1));
        assert_eq!(ids(waiting.queues()), [(first, 1), (second, 2), (of_other, 3)]);

        waiting.begin();
        assert!(waiting.take_place(&one, second), "its input need not be read again");
        assert_eq!(ids(waiting.queues()), [(second, 2)]);
        waiting.begin();
        assert!(!waiting.take_place(&one, first), "one that waits no more is forgotten");
        assert!(waiting.take_place(&one, second));
        waiting.begin();
        assert!(ids(waiting.queues()).is_empty(), "what an interrupted tick has seen is forgotten");
    }
}

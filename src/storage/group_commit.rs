//! Group commit: items that share commits. Whoever has one pushes it, and one task takes all that have gathered.
//!
//! A commit costs about the same for one item and for a thousand. So items wait for each other, at most for the time or
//! the weight that the queue is made with, and at most so many that memory is bounded when the storage is slow.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// How items gather.
#[derive(Debug, Clone, Copy)]
pub struct Gathering {
    /// How long the first item waits for others; zero if only for those that come while a commit is under way.
    pub longest: Duration,
    /// The weight at which what has gathered is taken at once.
    pub due: usize,
    /// The weight of all that may wait, and of all that was taken and not dropped.
    pub room: usize,
}

/// A queue of items that share commits.
pub struct GroupCommit<T> {
    gathering: Gathering,
    state: Mutex<State<T>>,
    /// Told when the first item comes, and when the rest is to be waited for no longer.
    changed: Notify,
    room: Arc<Semaphore>,
}

struct State<T> {
    items: Vec<Weighed<T>>,
    settling: Vec<oneshot::Sender<()>>,
    weight: usize,
    closed: bool,
}

/// An item, and the room that it takes until it is dropped.
pub struct Weighed<T> {
    /// The item.
    pub item: T,
    _room: OwnedSemaphorePermit,
}

impl<T> Deref for Weighed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

/// What is committed together.
pub struct Group<T> {
    /// The items, in the order in which they were pushed.
    pub items: Vec<Weighed<T>>,
    /// To be told once the items are committed.
    pub settling: Vec<oneshot::Sender<()>>,
}

impl<T> State<T> {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.settling.is_empty()
    }

    fn is_due(&self, gathering: &Gathering) -> bool {
        self.weight >= gathering.due || !self.settling.is_empty() || self.closed
    }
}

impl<T> GroupCommit<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(gathering: Gathering) -> Self {
        Self {
            gathering,
            state: Mutex::new(State { items: Vec::new(), settling: Vec::new(), weight: 0, closed: false }),
            changed: Notify::new(),
            room: Arc::new(Semaphore::new(gathering.room)),
        }
    }

    /// Adds an item, once there is room for it; one that is heavier than the room takes all of it. Items that come
    /// after the queue was closed are dropped.
    ///
    /// # Errors
    /// The item, if the queue is closed.
    pub async fn push(&self, item: T, weight: usize) -> Result<(), T> {
        let needed = u32::try_from(weight.clamp(1, self.gathering.room)).expect("a room has less than 2^32 units");
        let room = self.room.clone().acquire_many_owned(needed).await.expect("the semaphore is never closed");
        let mut state = self.lock();
        if state.closed {
            return Err(item);
        }
        let is_first = state.is_empty();
        state.weight += weight;
        state.items.push(Weighed { item, _room: room });
        let is_due = state.is_due(&self.gathering);
        drop(state);
        if is_first || is_due {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Returns when everything that was pushed before is committed.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.settling.push(done);
        }
        self.changed.notify_one();
        // An error: the queue was abandoned, and what was in it is lost.
        let _ = settled.await;
    }

    /// Nothing more is pushed: whoever takes the items takes what is here, and ends.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Nobody takes the items any more: what is here is dropped, and nobody waits for it.
    pub fn abandon(&self) {
        let mut state = self.lock();
        *state = State { items: Vec::new(), settling: Vec::new(), weight: 0, closed: true };
    }

    /// What is to be committed next, once enough has gathered, the first item has waited long enough, or somebody waits
    /// for its commit. `None` when nothing will come.
    pub async fn next(&self) -> Option<Group<T>> {
        self.until(|state| !state.is_empty() || state.closed).await;
        if !self.gathering.longest.is_zero() {
            // Whether it took that long does not matter.
            let due = self.until(|state| state.is_due(&self.gathering));
            let _ = tokio::time::timeout(self.gathering.longest, due).await;
        }
        let mut state = self.lock();
        let group = Group { items: std::mem::take(&mut state.items), settling: std::mem::take(&mut state.settling) };
        state.weight = 0;
        (!group.items.is_empty() || !group.settling.is_empty()).then_some(group)
    }

    async fn until(&self, holds: impl Fn(&State<T>) -> bool) {
        while !holds(&self.lock()) {
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn queue() -> GroupCommit<u32> {
        GroupCommit::new(Gathering { longest: Duration::from_secs(3600), due: 10, room: 15 })
    }

    #[tokio::test]
    async fn items_wait_for_those_before_them_to_be_committed() {
        let queue = queue();
        let push = |item| queue.push(item, 10);

        assert_eq!(push(1).now_or_never(), Some(Ok(())), "there is room");
        let mut waiting = Box::pin(push(2));
        assert!(waiting.as_mut().now_or_never().is_none(), "ten of fifteen are taken");
        let taken = queue.next().now_or_never().flatten().expect("enough has gathered");
        assert!(waiting.as_mut().now_or_never().is_none(), "it is not committed yet");
        drop(taken);
        assert_eq!(waiting.now_or_never(), Some(Ok(())), "there is room again");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_commit_ends_the_gathering() {
        let queue = queue();
        queue.push(1, 1).await.expect("it is open");
        assert!(queue.next().now_or_never().is_none(), "others may come");

        let mut settling = Box::pin(queue.settle());
        assert!(settling.as_mut().now_or_never().is_none());
        let group = queue.next().now_or_never().flatten().expect("it is due");
        assert_eq!(group.items.iter().map(|weighed| weighed.item).collect::<Vec<_>>(), [1]);
        group.settling.into_iter().for_each(|done| done.send(()).expect("it is waited for"));
        assert!(settling.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_closed_queue_gives_what_it_has_and_ends() {
        let queue = queue();
        queue.push(1, 1).await.expect("it is open");
        queue.close();

        assert_eq!(queue.push(2, 1).await, Err(2));
        assert_eq!(queue.next().await.expect("there is an item").items.len(), 1);
        assert!(queue.next().await.is_none());
    }

    #[test]
    fn nobody_waits_for_a_queue_that_was_abandoned() {
        let queue = queue();
        let mut waiting = Box::pin(queue.settle());
        assert!(waiting.as_mut().now_or_never().is_none(), "nobody has taken anything");

        queue.abandon();

        assert!(waiting.now_or_never().is_some(), "who waited already");
        assert!(queue.settle().now_or_never().is_some(), "and who comes later");
    }
}

//! One budget of bytes for all answers in flight.
//!
//! An answer may always hold a small share. One that is larger takes a single reservation for all of it before it is
//! read on: taken bit by bit, answers could each hold a part and wait for each other for ever. The reservation belongs
//! to the answer's body and is given back with the last copy of it, which is when the row's line has been handed to the
//! recorder, whose room is its own. Nobody who holds a reservation waits for another.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What answers may hold without asking: 64 MiB for 256 calls at once.
const SHARE: usize = 256 << 10;
/// No inference server answers with more; what does is broken, and must not fill the memory.
const LARGEST: usize = 64 << 20;
/// For all that is beyond the shares: four of the largest answers at once, or a hundred embeddings of a few MiB.
const ROOM: usize = 512 << 20;
/// An answer is held twice while its line is built, and while a body of unknown length grows.
const COPIES: usize = 2;

/// Bytes that all answers of an upstream may hold together. Clones share one budget.
#[derive(Debug, Clone)]
pub(super) struct AnswerBudget {
    share: usize,
    largest: usize,
    room: usize,
    /// In KiB.
    free: Arc<Semaphore>,
}

impl Default for AnswerBudget {
    fn default() -> Self {
        Self::new(SHARE, LARGEST, ROOM)
    }
}

impl AnswerBudget {
    pub(super) fn new(share: usize, largest: usize, room: usize) -> Self {
        Self { share, largest, room, free: Arc::new(Semaphore::new(room >> 10)) }
    }

    /// Bytes that an answer may have without a reservation.
    pub(super) fn share(&self) -> usize {
        self.share
    }

    /// Bytes that an answer may have at all.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Waits until an answer of so many bytes has room. One that is larger than the budget takes all of it.
    pub(super) async fn reserve(&self, bytes: usize) -> Reservation {
        let kib = self.kib(bytes);
        let permit = self.free.clone().acquire_many_owned(kib).await.expect("the semaphore is never closed");
        Reservation { permit, budget: self.clone() }
    }

    fn kib(&self, bytes: usize) -> u32 {
        let kib = (COPIES * bytes).min(self.room) >> 10;
        u32::try_from(kib).expect("the room is less than 4 TiB")
    }

    #[cfg(test)]
    fn reserved(&self) -> usize {
        self.room - (self.free.available_permits() << 10)
    }
}

/// Room for one answer, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    permit: OwnedSemaphorePermit,
    budget: AnswerBudget,
}

impl Reservation {
    /// The body that the room was reserved for: it keeps as much as it takes, as long as any copy of it lives.
    pub(super) fn fill(mut self, body: Bytes) -> Bytes {
        let unused = self.permit.num_permits().saturating_sub(self.budget.kib(body.len()) as usize);
        drop(self.permit.split(unused));
        Bytes::from_owner(Filled { body, _room: self.permit })
    }
}

/// A body that was made of another: it keeps the room of that one, as long as any copy of it lives.
pub(super) fn made_of(other: Bytes, body: Bytes) -> Bytes {
    Bytes::from_owner(Filled { body, _room: other })
}

/// A body, and what keeps its room.
struct Filled<R> {
    body: Bytes,
    _room: R,
}

impl<R> AsRef<[u8]> for Filled<R> {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn room_is_kept_as_long_as_any_copy_of_the_body_lives() {
        let budget = AnswerBudget::new(1 << 10, 1 << 20, 2 << 20);

        let reservation = budget.reserve(1 << 20).now_or_never().expect("there is room");
        assert_eq!(budget.reserved(), 2 << 20);
        let body = reservation.fill(Bytes::from(vec![7; 256 << 10]));
        assert_eq!(budget.reserved(), 512 << 10, "what the answer does not need is given back at once");
        let part = body.slice(1..2);
        drop(body);
        assert_eq!(budget.reserved(), 512 << 10);
        let repaired = made_of(part, Bytes::from_static(b"repaired"));
        assert_eq!(budget.reserved(), 512 << 10, "what is made of it has its room");
        let part = repaired.slice(1..2);
        drop(repaired);
        assert_eq!((&part[..], budget.reserved()), (&b"e"[..], 512 << 10));
        drop(part);
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn whoever_is_called_off_while_waiting_takes_nothing() {
        let budget = AnswerBudget::new(1 << 10, 1 << 20, 2 << 20);
        let first = budget.reserve(1 << 20).now_or_never().expect("there is room");

        let mut waiting = Box::pin(budget.reserve(1 << 20));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        drop(first);

        assert_eq!(budget.reserved(), 0);
        assert!(budget.reserve(100 << 20).now_or_never().is_some(), "one that is larger than all has all");
    }
}

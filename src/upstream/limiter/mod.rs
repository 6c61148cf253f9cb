//! How many calls an upstream may have under way: each is made with a [`Permit`].
//!
//! A permit is held for as long as its holder likes, from one row to the next. Between rows the holder asks
//! [`Permit::keep`], which takes the permit from it if the limit was lowered or if a row that had one before waits for
//! it. So the hot path costs one relaxed load, and still a row that comes back from its tools goes on before new rows
//! begin.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use crate::sync::lock;

/// Bounds the calls under way. Clones share the bound.
#[derive(Debug, Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// A copy of the state's limit, for a look without a lock.
    limit: AtomicUsize,
    /// Permits that their holders are to give up: those above the limit, and one for each waiter of the first class.
    claimed: AtomicUsize,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Permits that are held, those on their way to a waiter among them.
    held: usize,
    /// Who waits, in their order. A waiter that has given up is found out when its turn comes.
    continuing: VecDeque<oneshot::Sender<Permit>>,
    new: VecDeque<oneshot::Sender<Permit>>,
}

/// What a permit is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Work that had a permit before, and gave it up while it waited for something else. It comes first.
    Continuing,
    /// Work that begins.
    New,
}

/// The right to have one call under way. Dropping it gives it to the next that waits.
#[derive(Debug)]
pub struct Permit {
    /// None once it was given back.
    shared: Option<Arc<Shared>>,
}

impl Limiter {
    /// A limiter of `limit` permits, which may be 0.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let state = State { limit, held: 0, continuing: VecDeque::new(), new: VecDeque::new() };
        let (state, limit, claimed) = (Mutex::new(state), AtomicUsize::new(limit), AtomicUsize::new(0));
        Self { shared: Arc::new(Shared { state, limit, claimed }) }
    }

    /// How many permits there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.limit.load(Relaxed)
    }

    /// How many permits are held. More than [`Limiter::limit`] for a while after it was lowered.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.lock().held
    }

    /// Sets how many permits there are. Permits above a lower limit are taken from their holders as they ask
    /// [`Permit::keep`] or drop them; no call under way is touched.
    pub fn set_limit(&self, limit: usize) {
        let mut state = self.shared.lock();
        state.limit = limit;
        self.shared.limit.store(limit, Relaxed);
        while state.held < limit && self.shared.grant(&mut state) {
            state.held += 1;
        }
        self.shared.note_claims(&state);
    }

    /// Waits for a permit: behind all who waited before with the same priority, and before the others if it continues.
    /// Dropping the future gives up the place, and a permit that was on its way goes to the next.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        let granted = {
            let mut state = self.shared.lock();
            if state.held < state.limit {
                state.held += 1;
                return self.shared.permit();
            }
            let (waiter, granted) = oneshot::channel();
            match priority {
                Priority::Continuing => state.continuing.push_back(waiter),
                Priority::New => state.new.push_back(waiter),
            }
            self.shared.note_claims(&state);
            granted
        };
        granted.await.expect("the limiter keeps a waiter until it has its permit")
    }
}

impl Shared {
    fn permit(self: &Arc<Self>) -> Permit {
        Permit { shared: Some(self.clone()) }
    }

    /// Hands a permit to the first who waits. Whether anybody does.
    fn grant(self: &Arc<Self>, state: &mut State) -> bool {
        while let Some(waiter) = state.continuing.pop_front().or_else(|| state.new.pop_front()) {
            match waiter.send(self.permit()) {
                Ok(()) => return true,
                // It has given up. Its permit was never held, so that nothing is given back.
                Err(permit) => permit.forget(),
            }
        }
        false
    }

    /// Takes a permit back, and gives it to the next that waits unless the limit was lowered.
    fn take_back(self: &Arc<Self>, state: &mut State) {
        if state.held > state.limit || !self.grant(state) {
            state.held -= 1;
        }
        self.note_claims(state);
    }

    fn note_claims(&self, state: &State) {
        self.claimed.store(state.held.saturating_sub(state.limit) + state.continuing.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Permit {
    /// The permit, unless the limiter wants it back. To be asked whenever its holder could do without.
    #[must_use]
    pub fn keep(mut self) -> Option<Self> {
        let shared = self.shared.take()?;
        if shared.claimed.load(Relaxed) == 0 {
            self.shared = Some(shared);
            return Some(self);
        }
        let mut state = shared.lock();
        // Those that waited may have given up, and another holder may have given up its permit.
        while state.continuing.front().is_some_and(oneshot::Sender::is_closed) {
            state.continuing.pop_front();
        }
        if state.held <= state.limit && state.continuing.is_empty() {
            shared.note_claims(&state);
            drop(state);
            self.shared = Some(shared);
            return Some(self);
        }
        shared.take_back(&mut state);
        None
    }

    /// Drops it without giving it back.
    fn forget(mut self) {
        self.shared = None;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.take_back(&mut shared.lock());
        }
    }
}

#[cfg(test)]
mod tests;

//! What is known of each open connection: whether it waits for a request, and since when.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// No request is being answered, and everything that was written has gone out.
const QUIET: u8 = 0;
/// A request is being answered.
const ANSWERING: u8 = 1;
/// The answer is complete, and some of it may not have gone out.
const ANSWERED: u8 = 2;

/// One connection, as its IO, its service and the accept loop see it.
#[derive(Debug)]
pub(super) struct Peer {
    opened: Instant,
    phase: AtomicU8,
    requests: AtomicU32,
    /// On the clock of [`Peers`], which counts such moments.
    quiet_since: AtomicU64,
    clock: Arc<AtomicU64>,
    /// Cancelled by the accept loop to make room.
    pub(super) evicted: CancellationToken,
}

impl Peer {
    /// A request has come. It is being answered until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Answering {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.phase.store(ANSWERING, Ordering::Release);
        Answering(self.clone())
    }

    /// Everything that was written has gone out.
    pub(super) fn flushed(&self) {
        if self.phase.compare_exchange(ANSWERED, QUIET, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.quiet_since.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.phase.load(Ordering::Acquire) == QUIET
    }

    /// How many requests have come.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A request that is being answered. It goes with the body of the answer.
#[derive(Debug)]
pub(super) struct Answering(Arc<Peer>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.phase.store(ANSWERED, Ordering::Release);
    }
}

/// All open connections.
#[derive(Debug, Default)]
pub(super) struct Peers {
    open: Mutex<HashMap<u64, Arc<Peer>>>,
    clock: Arc<AtomicU64>,
}

/// An open connection's entry. Dropping it takes the entry out.
pub(super) struct Entry {
    peers: Arc<Peers>,
    key: u64,
    pub(super) peer: Arc<Peer>,
}

impl Peers {
    pub(super) fn enter(self: &Arc<Self>) -> Entry {
        let key = self.clock.fetch_add(1, Ordering::Relaxed);
        let (quiet_since, clock) = (AtomicU64::new(key), self.clock.clone());
        let peer = Arc::new(Peer {
            opened: Instant::now(),
            phase: AtomicU8::new(QUIET),
            requests: AtomicU32::new(0),
            quiet_since,
            clock,
            evicted: CancellationToken::new(),
        });
        self.open.lock().expect("nobody panics with the lock").insert(key, peer.clone());
        Entry { peers: self.clone(), key, peer }
    }

    /// Closes the connection that has waited longest for a request. Whether there was one. The first request of a
    /// connection that has just come may be on its way.
    pub(super) fn evict(&self, new: Duration) -> bool {
        let open = self.open.lock().expect("nobody panics with the lock");
        let is_new = |peer: &Peer| peer.requests() == 0 && peer.opened.elapsed() < new;
        let waiting = open.values().filter(|peer| peer.is_quiet() && !peer.evicted.is_cancelled() && !is_new(peer));
        let longest = waiting.min_by_key(|peer| peer.quiet_since.load(Ordering::Relaxed));
        longest.inspect(|peer| peer.evicted.cancel()).is_some()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.peers.open.lock().expect("nobody panics with the lock").remove(&self.key);
    }
}

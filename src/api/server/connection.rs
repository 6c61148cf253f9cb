//! The state of each open connection: whether it waits for a request, and since when.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sync::lock;

/// No request is being answered, and all written bytes have gone out.
const QUIET: u8 = 0;
/// A request is being answered.
const ANSWERING: u8 = 1;
/// The response is complete, but some of its bytes may not have gone out.
const ANSWERED: u8 = 2;

/// One connection. Its byte stream and its service write the state; the accept loop reads it.
#[derive(Debug)]
pub(super) struct Connection {
    opened: Instant,
    phase: AtomicU8,
    requests: AtomicU32,
    /// When it last became quiet, by the counter of [`OpenConnections`].
    quiet_since: AtomicU64,
    clock: Arc<AtomicU64>,
    /// Cancelled by the accept loop to free the slot.
    pub(super) evicted: CancellationToken,
}

impl Connection {
    /// Notes that a request arrived. It is being answered until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> AnsweringGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.phase.store(ANSWERING, Ordering::Release);
        AnsweringGuard(self.clone())
    }

    /// Notes that all written bytes have gone out.
    pub(super) fn flushed(&self) {
        if self.phase.compare_exchange(ANSWERED, QUIET, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.quiet_since.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.phase.load(Ordering::Acquire) == QUIET
    }

    /// The number of requests so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// A request that is being answered. The body of the response holds this guard.
#[derive(Debug)]
pub(super) struct AnsweringGuard(Arc<Connection>);

impl Drop for AnsweringGuard {
    fn drop(&mut self) {
        self.0.phase.store(ANSWERED, Ordering::Release);
    }
}

/// All open connections.
#[derive(Debug, Default)]
pub(super) struct OpenConnections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    clock: Arc<AtomicU64>,
}

/// An open connection's entry in [`OpenConnections`]. Dropping the guard removes the entry.
pub(super) struct ConnectionGuard {
    connections: Arc<OpenConnections>,
    key: u64,
    pub(super) connection: Arc<Connection>,
}

impl OpenConnections {
    pub(super) fn enter(self: &Arc<Self>) -> ConnectionGuard {
        let key = self.clock.fetch_add(1, Ordering::Relaxed);
        let (quiet_since, clock) = (AtomicU64::new(key), self.clock.clone());
        let connection = Arc::new(Connection {
            opened: Instant::now(),
            phase: AtomicU8::new(QUIET),
            requests: AtomicU32::new(0),
            quiet_since,
            clock,
            evicted: CancellationToken::new(),
        });
        lock(&self.open).insert(key, connection.clone());
        ConnectionGuard { connections: self.clone(), key, connection }
    }

    /// Closes the connection that has waited longest for a request, and returns whether there was one. A connection
    /// younger than `new` without a request is spared: its first request may be on its way.
    pub(super) fn evict(&self, new: Duration) -> bool {
        let open = lock(&self.open);
        let is_new = |connection: &Connection| connection.requests() == 0 && connection.opened.elapsed() < new;
        let waiting = open
            .values()
            .filter(|connection| connection.is_quiet() && !connection.evicted.is_cancelled() && !is_new(connection));
        let longest = waiting.min_by_key(|connection| connection.quiet_since.load(Ordering::Relaxed));
        longest.inspect(|connection| connection.evicted.cancel()).is_some()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        lock(&self.connections.open).remove(&self.key);
    }
}

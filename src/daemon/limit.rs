//! How many calls this daemon may have under way: all it was told, or its share of what the upstream bears.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::telemetry::metrics;

/// A larger share is taken only after it has been this daemon's for so long: by then the others know of theirs.
const SETTLED: Duration = Duration::from_millis(2500);

/// How many callers may work. Moved by the heartbeat, read by every caller before every row.
pub(super) struct Limit {
    now: AtomicUsize,
    most: usize,
    growing_since: Mutex<Option<Instant>>,
    moved: Notify,
}

impl Limit {
    /// A limit of `most` at any time; if it is `shared`, of none until the daemon knows its share.
    pub(super) fn new(most: usize, shared: bool) -> Self {
        let now = if shared { 0 } else { most };
        metrics::concurrency_limited_to(now);
        Self { now: AtomicUsize::new(now), most, growing_since: Mutex::default(), moved: Notify::new() }
    }

    pub(super) fn now(&self) -> usize {
        self.now.load(Relaxed)
    }

    /// Follows a share: down at once, up when it has settled.
    pub(super) fn follow(&self, share: usize, at: Instant) {
        let share = share.min(self.most);
        let mut growing_since = self.growing_since.lock().unwrap_or_else(PoisonError::into_inner);
        if share > self.now() && at.duration_since(*growing_since.get_or_insert(at)) < SETTLED {
            return;
        }
        *growing_since = None;
        let before = self.now.swap(share, Relaxed);
        metrics::concurrency_limited_to(share);
        if share != before {
            self.moved.notify_waiters();
        }
    }

    /// Waits until more than `callers` may work.
    pub(super) async fn until_above(&self, callers: usize) {
        self.until(|now| now > callers).await;
    }

    /// Waits until no more than `callers` may work.
    pub(super) async fn until_no_more_than(&self, callers: usize) {
        self.until(|now| now <= callers).await;
    }

    async fn until(&self, holds: impl Fn(usize) -> bool) {
        loop {
            let moved = self.moved.notified();
            if holds(self.now()) {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_share_shrinks_at_once_and_grows_when_it_has_settled() {
        let limit = Limit::new(10, true);
        let start = Instant::now();
        let mut waiting = Box::pin(limit.until_above(0));

        let follow = |share, at| {
            limit.follow(share, at);
            limit.now()
        };
        assert_eq!(follow(4, start), 0);
        assert_eq!(follow(4, start + SETTLED / 2), 0);
        assert_eq!(follow(4, start + SETTLED), 4);
        assert_eq!(follow(6, start + SETTLED), 4);
        assert_eq!(follow(3, start + SETTLED * 2), 3);
        assert_eq!(follow(6, start + SETTLED * 2), 3, "what grew before it shrank does not count");
        assert_eq!(follow(60, start + SETTLED * 3), 10, "never above its own limit");

        assert!(waiting.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_limit_of_its_own_holds_from_the_start() {
        assert_eq!(Limit::new(10, false).now(), 10);
    }
}

//! Lease validity: until when this daemon may trust its leases.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Extended by each answered heartbeat; read by the workers before each attempt. A daemon whose leases may have lapsed
/// starts no attempt: other daemons may have taken the leases over, and would run the same rows.
pub(in crate::daemon) struct LeaseValidity {
    born: Instant,
    /// Milliseconds after `born`.
    until: AtomicU64,
    extended: Notify,
}

impl LeaseValidity {
    /// Not valid before the first heartbeat.
    pub(in crate::daemon) fn new() -> Self {
        Self { born: Instant::now(), until: AtomicU64::new(0), extended: Notify::new() }
    }

    /// Makes leases valid for `lifetime` from `asked` on. That is the time before the heartbeat was sent, so that the
    /// count here ends before any that others began when it arrived.
    pub(in crate::daemon) fn extend(&self, asked: Instant, lifetime: Duration) {
        self.until.store(millis(asked.duration_since(self.born) + lifetime), Relaxed);
        self.extended.notify_waiters();
    }

    pub(in crate::daemon) fn is_valid(&self) -> bool {
        millis(self.born.elapsed()) < self.until.load(Relaxed)
    }

    /// Returns at once if leases are valid, else once a heartbeat has made them so.
    pub(in crate::daemon) async fn wait_until_valid(&self) {
        loop {
            let extended = self.extended.notified();
            if self.is_valid() {
                return;
            }
            extended.await;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn leases_are_valid_from_beat_to_beat() {
        let validity = LeaseValidity::new();
        assert!(!validity.is_valid(), "no heart has beaten");
        let mut waiting = Box::pin(validity.wait_until_valid());
        assert!(waiting.as_mut().now_or_never().is_none());

        validity.extend(Instant::now(), Duration::from_secs(60));
        assert!(waiting.now_or_never().is_some());
        assert!(validity.is_valid());

        // The answer to a beat that was sent too long ago.
        validity.extend(Instant::now(), Duration::ZERO);
        assert!(!validity.is_valid());
    }
}

//! Until when this daemon's leases are its own, as far as it can know.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Extended by each heartbeat that was answered; looked at before each attempt. A daemon whose line has run out starts
/// nothing: others may have taken its leases over, and what it would run they run too.
pub(super) struct Lifeline {
    born: Instant,
    /// Milliseconds after `born`.
    until: AtomicU64,
    extended: Notify,
}

impl Lifeline {
    /// A line that has not begun: no heart has beaten yet.
    pub(super) fn new() -> Self {
        Self { born: Instant::now(), until: AtomicU64::new(0), extended: Notify::new() }
    }

    /// Extends the line to `lifetime` after `asked`, which is before the database was asked: its own count began later.
    pub(super) fn extend(&self, asked: Instant, lifetime: Duration) {
        self.until.store(millis(asked.duration_since(self.born) + lifetime), Relaxed);
        self.extended.notify_waiters();
    }

    pub(super) fn holds(&self) -> bool {
        millis(self.born.elapsed()) < self.until.load(Relaxed)
    }

    /// Returns at once while the line holds, else when it is extended.
    pub(super) async fn until_it_holds(&self) {
        loop {
            let extended = self.extended.notified();
            if self.holds() {
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
    fn a_line_holds_from_beat_to_beat() {
        let line = Lifeline::new();
        assert!(!line.holds(), "no heart has beaten");
        let mut waiting = Box::pin(line.until_it_holds());
        assert!(waiting.as_mut().now_or_never().is_none());

        line.extend(Instant::now(), Duration::from_secs(60));
        assert!(waiting.now_or_never().is_some());
        assert!(line.holds());

        // The answer to a beat that was sent too long ago.
        line.extend(Instant::now(), Duration::ZERO);
        assert!(!line.holds());
    }
}

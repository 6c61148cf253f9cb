//! When an item that has failed may be tried again: after longer pauses each time, so that it costs the others little.
//!
//! The pauses are in memory alone: a daemon that starts tries every item at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// An item whose pause ended so long ago, and that has not failed since, is gone or well.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The items that failed when they were last tried.
pub(super) struct Backoff<Id> {
    longest: Duration,
    items: Mutex<HashMap<Id, Failing>>,
}

#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    pause: Duration,
    due: Instant,
}

/// When an item that failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// The pause until then.
    pub(super) after: Duration,
    /// False if another attempt at the same time has failed before, whose pause holds for this one too.
    pub(super) is_new: bool,
}

impl<Id: Copy + Eq + Hash> Backoff<Id> {
    /// Pauses double from a second up to `longest`.
    pub(super) fn up_to(longest: Duration) -> Self {
        Self { longest, items: Mutex::default() }
    }

    pub(super) fn is_due(&self, id: Id, now: Instant) -> bool {
        self.lock().get(&id).is_none_or(|item| item.due <= now)
    }

    /// How long ago the first failure was since the item last went well. Zero if it has not failed since, or not for
    /// long.
    pub(super) fn failing_for(&self, id: Id, now: Instant) -> Duration {
        let items = self.lock();
        let item = items.get(&id).filter(|item| now.duration_since(item.due) < FORGOTTEN_AFTER);
        item.map_or(Duration::ZERO, |item| now.duration_since(item.since))
    }

    /// Notes that an item failed.
    pub(super) fn failed(&self, id: Id, now: Instant) -> Retry {
        let mut items = self.lock();
        let known = items.get(&id).copied().filter(|item| now.duration_since(item.due) < FORGOTTEN_AFTER);
        if let Some(item) = known.filter(|item| item.due > now) {
            return Retry { after: item.due - now, is_new: false };
        }
        let pause = known.map_or(FIRST_PAUSE, |item| self.longest.min(item.pause * 2));
        let since = known.map_or(now, |item| item.since);
        items.insert(id, Failing { since, pause, due: now + pause });
        Retry { after: pause, is_new: true }
    }

    /// Notes that an item went well.
    pub(super) fn went_well(&self, id: Id) {
        self.lock().remove(&id);
    }

    /// How many items fail. Forgets those that have not failed for long.
    pub(super) fn count(&self, now: Instant) -> usize {
        let mut items = self.lock();
        items.retain(|_, item| now.duration_since(item.due) < FORGOTTEN_AFTER);
        items.len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Failing>> {
        lock(&self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_success() {
        let backoff = Backoff::up_to(LONGEST);
        let start = Instant::now();
        let mut now = start;
        for seconds in [1, 2, 4, 5, 5] {
            assert!(backoff.is_due('a', now));
            assert_eq!(backoff.failed('a', now), Retry { after: Duration::from_secs(seconds), is_new: true });
            assert!(!backoff.is_due('a', now) && backoff.is_due('b', now));
            now += Duration::from_secs(seconds);
        }
        assert_eq!((backoff.count(now), backoff.failing_for('a', now)), (1, Duration::from_secs(17)));

        backoff.went_well('a');
        assert_eq!((backoff.count(now), backoff.failing_for('a', now)), (0, Duration::ZERO));
    }

    #[test]
    fn failures_within_a_pause_do_not_make_it_longer() {
        let backoff = Backoff::up_to(LONGEST);
        let start = Instant::now();
        backoff.failed('a', start);

        let beside = backoff.failed('a', start + Duration::from_millis(400));

        assert_eq!(beside, Retry { after: Duration::from_millis(600), is_new: false });
    }

    #[test]
    fn items_that_are_not_seen_again_are_forgotten() {
        let backoff = Backoff::up_to(LONGEST);
        let start = Instant::now();
        backoff.failed('a', start);

        assert_eq!(backoff.count(start + FIRST_PAUSE + FORGOTTEN_AFTER), 0);
    }
}

//! Whether the daemon's loops are running, and whether they succeed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::metrics;
use crate::sync::lock;

/// A loop counts as stuck if it has not made progress for this long.
const STUCK_AFTER: Duration = Duration::from_secs(90);
/// A loop counts as failing after this many failed runs in a row, the first of them at least this long ago. A short
/// outage of the database is no reason to take the service out of use.
const FAILING_TICKS: u32 = 3;
const FAILING_AFTER: Duration = Duration::from_secs(10);

/// The state of each loop of a daemon. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Liveness(Arc<Mutex<BTreeMap<&'static str, Loop>>>);

/// Written by the loop itself, read by `/readyz`.
#[derive(Debug)]
struct Loop {
    ticked: Instant,
    /// The time of the first of the failed runs in a row, and their number.
    failed: Option<(Instant, u32)>,
    /// The number of items that wait for a retry.
    in_backoff: usize,
}

impl Liveness {
    /// The loops that have made no progress for a minute and a half.
    #[must_use]
    pub fn stuck(&self) -> Vec<&'static str> {
        self.stuck_at(Instant::now())
    }

    /// The loops that fail again and again, and for how long.
    #[must_use]
    pub fn failing(&self) -> Vec<(&'static str, Duration)> {
        self.failing_at(Instant::now())
    }

    /// The loops with items that wait for a retry, and how many.
    #[must_use]
    pub fn in_backoff(&self) -> Vec<(&'static str, usize)> {
        lock(&self.0).iter().filter(|(_, it)| it.in_backoff > 0).map(|(name, it)| (*name, it.in_backoff)).collect()
    }

    /// Notes that a loop makes progress in the middle of a run.
    pub fn gets_on(&self, name: &'static str) {
        self.gets_on_at(name, Instant::now());
    }

    /// Notes that a loop has run, and whether the run failed.
    pub fn ticked(&self, name: &'static str, failed: bool) {
        let ticks = self.ticked_at(name, failed, Instant::now());
        metrics::loop_ticked(name);
        metrics::ticks_failed(name, ticks);
        if failed {
            metrics::loop_failed(name);
        }
    }

    /// Notes how many items of a loop wait for a retry.
    pub fn has_in_backoff(&self, name: &'static str, items: usize) {
        self.with(name, |it| it.in_backoff = items);
        metrics::items_in_backoff(name, items);
    }

    fn stuck_at(&self, now: Instant) -> Vec<&'static str> {
        let is_stuck = |it: &Loop| now.saturating_duration_since(it.ticked) > STUCK_AFTER;
        lock(&self.0).iter().filter(|(_, it)| is_stuck(it)).map(|(name, _)| *name).collect()
    }

    fn failing_at(&self, now: Instant) -> Vec<(&'static str, Duration)> {
        let failing = |(name, it): (&&'static str, &Loop)| {
            let (since, ticks) = it.failed?;
            let lasts = now.saturating_duration_since(since);
            (ticks >= FAILING_TICKS && lasts >= FAILING_AFTER).then_some((*name, lasts))
        };
        lock(&self.0).iter().filter_map(failing).collect()
    }

    fn gets_on_at(&self, name: &'static str, now: Instant) {
        self.with(name, |it| it.ticked = now);
    }

    /// Returns how many runs have failed in a row.
    fn ticked_at(&self, name: &'static str, failed: bool, now: Instant) -> u32 {
        self.with(name, |it| {
            it.ticked = now;
            it.failed = failed.then(|| it.failed.map_or((now, 1), |(since, ticks)| (since, ticks + 1)));
            it.failed.map_or(0, |(_, ticks)| ticks)
        })
    }

    fn with<T>(&self, name: &'static str, change: impl FnOnce(&mut Loop) -> T) -> T {
        let fresh = || Loop { ticked: Instant::now(), failed: None, in_backoff: 0 };
        change(lock(&self.0).entry(name).or_insert_with(fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_fails_when_tick_after_tick_has_failed_for_a_while() {
        let liveness = Liveness::default();
        let start = Instant::now();
        let ticked = |failed, at| {
            liveness.ticked_at("a", failed, at);
            liveness.failing_at(at)
        };

        assert_eq!(ticked(true, start), []);
        assert_eq!(ticked(true, start + FAILING_AFTER), [], "two ticks are few");
        assert_eq!(ticked(true, start + FAILING_AFTER), [("a", FAILING_AFTER)]);
        assert_eq!(ticked(false, start + FAILING_AFTER), []);
        for _ in 0..5 {
            assert_eq!(ticked(true, start + FAILING_AFTER), [], "one that went well begins the count anew");
        }
    }

    #[test]
    fn a_long_tick_that_gets_on_is_not_stuck() {
        let liveness = Liveness::default();
        let start = Instant::now();
        liveness.ticked_at("a", false, start);
        liveness.ticked_at("b", false, start);
        liveness.gets_on_at("a", start + STUCK_AFTER);

        assert_eq!(liveness.stuck_at(start + STUCK_AFTER), Vec::<&str>::new());
        assert_eq!(liveness.stuck_at(start + STUCK_AFTER + Duration::from_secs(1)), ["b"]);
    }
}

//! The counters of the simulator, and the keys it has seen.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::answers::Kind;
use crate::sync::lock;

/// The counters at one moment: the body of `GET /stats`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatsSnapshot {
    /// Inference requests that arrived.
    pub requests: u64,
    /// The same by path, such as `/v1/responses`; only paths that were asked for.
    pub requests_by_path: BTreeMap<&'static str, u64>,
    /// Requests that run or wait for their turn. Rejected ones never count.
    pub in_flight: u64,
    /// The most there were in flight at any time.
    pub peak_in_flight: u64,
    /// Requests whose `Idempotency-Key` had been seen before.
    pub repeats: u64,
    /// The `Idempotency-Key`s that were seen more than once.
    pub repeated_keys: u64,
    /// Requests answered with a status of 400 or more.
    pub failures: u64,
}

/// The live counters. Every request writes them, with relaxed ordering, because no other memory depends on them.
pub struct Stats {
    /// By the number of their [`Kind`].
    requests: [AtomicU64; Kind::ALL.len()],
    in_flight: AtomicU64,
    peak_in_flight: AtomicU64,
    repeats: AtomicU64,
    repeated_keys: AtomicU64,
    failures: AtomicU64,
    seen: SeenKeys,
}

impl Stats {
    /// Counters of a server that has seen no request.
    pub fn new() -> Self {
        Self {
            requests: Default::default(),
            in_flight: AtomicU64::new(0),
            peak_in_flight: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            repeated_keys: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            seen: SeenKeys::default(),
        }
    }

    /// The counters at this moment.
    pub fn snapshot(&self) -> StatsSnapshot {
        let requests = Kind::ALL.map(|kind| (kind.path(), self.requests[kind as usize].load(Relaxed)));
        StatsSnapshot {
            requests: requests.iter().map(|(_, count)| count).sum(),
            requests_by_path: requests.into_iter().filter(|(_, count)| *count > 0).collect(),
            in_flight: self.in_flight.load(Relaxed),
            peak_in_flight: self.peak_in_flight.load(Relaxed),
            repeats: self.repeats.load(Relaxed),
            repeated_keys: self.repeated_keys.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }

    /// Counts a request and says how often its key was seen before.
    pub fn arrived(&self, kind: Kind, key: Option<&[u8]>) -> u32 {
        self.requests[kind as usize].fetch_add(1, Relaxed);
        let repeat = key.map_or(0, |key| self.seen.add(key));
        if repeat > 0 {
            self.repeats.fetch_add(1, Relaxed);
            self.repeated_keys.fetch_add(u64::from(repeat == 1), Relaxed);
        }
        repeat
    }

    /// A request is in flight.
    pub fn entered(&self) {
        let in_flight = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.peak_in_flight.fetch_max(in_flight, Relaxed);
    }

    /// A request is in flight no more.
    pub fn left(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// A request was answered with a failure.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }
}

/// How often each key was seen. A 128-bit hash stands for the key: it is cheaper than a copy, and two keys never
/// collide in practice. The map grows with every key; a simulator is not meant to run for months.
#[derive(Default)]
struct SeenKeys {
    high: RandomState,
    low: RandomState,
    /// Locked for one look-up at a time, never across an await.
    times: Mutex<HashMap<u128, u32>>,
}

impl SeenKeys {
    /// Notes the key and says how often it was seen before.
    fn add(&self, key: &[u8]) -> u32 {
        let digest = (u128::from(self.high.hash_one(key)) << 64) | u128::from(self.low.hash_one(key));
        let mut times = lock(&self.times);
        let count = times.entry(digest).or_insert(0);
        let before = *count;
        *count = before.saturating_add(1);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_per_key() {
        let stats = Stats::new();

        let repeats =
            [Some(&b"a"[..]), Some(b"b"), None, Some(b"a"), None, Some(b"a")].map(|key| stats.arrived(Kind::Chat, key));

        assert_eq!(repeats, [0, 0, 0, 1, 0, 2]);
        assert_eq!(stats.snapshot().requests, 6);
        assert_eq!(stats.snapshot().requests_by_path, BTreeMap::from([("/v1/chat/completions", 6)]));
        assert_eq!(stats.snapshot().repeats, 2);
        assert_eq!(stats.snapshot().repeated_keys, 1);
    }

    #[test]
    fn the_peak_stays_when_requests_leave() {
        let stats = Stats::new();
        stats.entered();
        stats.entered();
        stats.left();
        stats.entered();
        stats.left();
        stats.left();

        assert_eq!(stats.snapshot().in_flight, 0);
        assert_eq!(stats.snapshot().peak_in_flight, 2);
    }
}

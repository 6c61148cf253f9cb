//! What is kept of a batch beside its ledger, for those who wait for it: its throughput in the course of time, its
//! failures by kind, and its tokens by model. It says nothing that a batch ends by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::failures::FailureCounts;
use super::time::Timestamp;
use super::usage::Usage;

/// Points of the whole course. When there are so many, each two neighbours become one.
const MAX_POINTS: usize = 448;
/// Seconds of a point of the last minute.
const RECENT_SECONDS: i64 = 2;
/// Points of the last minute, and the one that is under way.
const MAX_RECENT: usize = 32;
/// Seconds over which a rate is measured.
const RATE_SECONDS: i64 = 60;
/// Models whose tokens are kept apart.
const MAX_MODELS: usize = 64;
/// Stands for all other models.
const OTHERS: &str = "(others)";

/// What one transaction records of a batch, for its statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordedRows {
    /// Rows that succeeded or failed.
    pub rows: u64,
    /// The tokens of each model.
    pub usage: BTreeMap<String, Usage>,
    /// The rows that failed.
    pub failures: FailureCounts,
}

/// The statistics of a batch. Their size is bounded, however many rows it has and however long it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchStatistics {
    /// The second in which the first row was recorded.
    begins: i64,
    /// Seconds of a point of `points`.
    seconds: i64,
    points: Vec<(u64, u64)>,
    /// The last minute: the second at which a point begins, its rows and tokens.
    recent: Vec<(i64, u64, u64)>,
    usage: BTreeMap<String, Usage>,
    failures: FailureCounts,
}

/// How fast rows were recorded lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RecordedRate {
    /// Rows that were recorded.
    pub rows: u64,
    /// Tokens of their answers and prompts.
    pub tokens: u64,
    /// In so many seconds, at most 60; 0 if no row was recorded yet.
    pub seconds: u32,
}

/// What was recorded in a part of a batch's course.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThroughputPoint {
    /// When the part begins.
    pub at: Timestamp,
    /// How long it is, in seconds.
    pub seconds: u32,
    /// The rows that were recorded in it.
    pub rows: u64,
    /// Their tokens.
    pub tokens: u64,
}

impl RecordedRate {
    /// Rows in a second.
    #[must_use]
    pub fn rows_per_second(self) -> f64 {
        per_second(self.rows, self.seconds)
    }

    /// Tokens in a second.
    #[must_use]
    pub fn tokens_per_second(self) -> f64 {
        per_second(self.tokens, self.seconds)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows and tokens are far below 2^52")]
fn per_second(count: u64, seconds: u32) -> f64 {
    if seconds == 0 { 0.0 } else { count as f64 / f64::from(seconds) }
}

impl BatchStatistics {
    /// Adds what is recorded at a time. A clock that steps back puts it into the last point.
    pub fn record(&mut self, now: Timestamp, recorded: &RecordedRows) {
        let tokens = recorded.usage.values().map(|usage| usage.total_tokens).sum();
        self.record_point(now.seconds(), recorded.rows, tokens);
        self.record_recent(now.seconds(), recorded.rows, tokens);
        self.failures.merge(&recorded.failures);
        for (model, usage) in &recorded.usage {
            let is_own = self.usage.len() < MAX_MODELS || self.usage.contains_key(model);
            self.usage.entry(if is_own { model } else { OTHERS }.to_owned()).or_default().add(*usage);
        }
    }

    fn record_point(&mut self, second: i64, rows: u64, tokens: u64) {
        if self.points.is_empty() {
            (self.begins, self.seconds) = (second, 1);
        }
        let most = i64::try_from(MAX_POINTS).expect("a small number");
        while (second - self.begins) / self.seconds >= most {
            self.seconds *= 2;
            let pairs = self.points.chunks(2);
            self.points = pairs.map(|pair| pair.iter().fold((0, 0), |sum, point| add(sum, *point))).collect();
        }
        let place = usize::try_from((second - self.begins) / self.seconds).unwrap_or(0);
        let place = place.max(self.points.len().saturating_sub(1));
        self.points.resize(self.points.len().max(place + 1), (0, 0));
        self.points[place] = add(self.points[place], (rows, tokens));
    }

    fn record_recent(&mut self, second: i64, rows: u64, tokens: u64) {
        let begins = second - second.rem_euclid(RECENT_SECONDS);
        match self.recent.last_mut() {
            Some((last, of_rows, of_tokens)) if begins <= *last => {
                (*of_rows, *of_tokens) = add((*of_rows, *of_tokens), (rows, tokens));
            }
            _ => self.recent.push((begins, rows, tokens)),
        }
        if self.recent.len() > MAX_RECENT {
            self.recent.remove(0);
        }
    }

    /// What was recorded in the last minute, or since the first row was.
    #[must_use]
    pub fn rate(&self, now: Timestamp) -> RecordedRate {
        if self.points.is_empty() {
            return RecordedRate::default();
        }
        let now = now.seconds();
        let from = now - RATE_SECONDS;
        let recent = self.recent.iter().filter(|(begins, ..)| *begins > from);
        let (rows, tokens) = recent.fold((0, 0), |sum, (_, rows, tokens)| add(sum, (*rows, *tokens)));
        let seconds = (now - self.begins).clamp(1, RATE_SECONDS);
        RecordedRate { rows, tokens, seconds: u32::try_from(seconds).unwrap_or(0) }
    }

    /// The whole course, from the first row that was recorded to the last: at most 448 points of equal length.
    #[must_use]
    pub fn throughput(&self) -> Vec<ThroughputPoint> {
        let point = |(place, (rows, tokens)): (i64, &(u64, u64))| ThroughputPoint {
            at: Timestamp((self.begins + place * self.seconds) * 1000),
            seconds: u32::try_from(self.seconds).unwrap_or(u32::MAX),
            rows: *rows,
            tokens: *tokens,
        };
        (0..).zip(&self.points).map(point).collect()
    }

    /// When the last row was recorded, to the length of a point.
    #[must_use]
    pub fn last_recorded(&self) -> Option<Timestamp> {
        self.recent.last().map(|(begins, ..)| Timestamp(begins * 1000))
    }

    /// The failures by kind.
    #[must_use]
    pub fn failures(&self) -> &FailureCounts {
        &self.failures
    }

    /// The tokens of each model; those of the last of more than 64 are together, as `(others)`.
    #[must_use]
    pub fn usage(&self) -> &BTreeMap<String, Usage> {
        &self.usage
    }
}

fn add((rows, tokens): (u64, u64), (more_rows, more_tokens): (u64, u64)) -> (u64, u64) {
    (rows.saturating_add(more_rows), tokens.saturating_add(more_tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    fn rows(rows: u64) -> RecordedRows {
        let usage = Usage { total_tokens: rows * 10, ..Usage::default() };
        RecordedRows { rows, usage: BTreeMap::from([("m".to_owned(), usage)]), ..RecordedRows::default() }
    }

    #[test]
    fn the_course_of_a_batch_has_a_bounded_number_of_points_and_loses_no_row() {
        // How long a batch runs, and the length of its points.
        for (run, length) in [(1, 1), (447, 1), (448, 2), (900, 4), (86_400, 256), (14 * 86_400, 4096)] {
            let mut statistics = BatchStatistics::default();
            for second in (0..=run).step_by(if run > 10_000 { 100 } else { 1 }) {
                statistics.record(at(1_000_000 + second), &rows(3));
            }

            let points = statistics.throughput();
            let recorded = if run > 10_000 { run / 100 + 1 } else { run + 1 };
            assert!(points.len() <= MAX_POINTS, "{run}: {}", points.len());
            assert_eq!(points[0].at, at(1_000_000));
            assert_eq!(points[0].seconds, length, "{run}");
            assert_eq!(points.iter().map(|point| point.rows).sum::<u64>(), 3 * u64::try_from(recorded).expect("small"));
            let stored = serde_json::to_string(&statistics).expect("JSON");
            assert!(stored.len() < 16_000, "{run}: {} bytes", stored.len());
            assert_eq!(serde_json::from_str::<BatchStatistics>(&stored).expect("as it was written"), statistics);
        }
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut statistics = BatchStatistics::default();
        assert_eq!(statistics.rate(at(0)), RecordedRate::default());
        for second in 0..300 {
            statistics.record(at(second), &rows(if second < 200 { 100 } else { 5 }));
        }

        let rate = statistics.rate(at(299));
        assert!((rate.rows_per_second() - 5.0).abs() < 0.3, "{rate:?}");
        assert!((rate.tokens_per_second() - 50.0).abs() < 3.0, "{rate:?}");
        assert_eq!(statistics.rate(at(400)).rows, 0, "nothing was recorded for a minute");
        assert_eq!(statistics.last_recorded(), Some(at(298)));
    }

    #[test]
    fn a_clock_that_steps_back_loses_no_row() {
        let mut statistics = BatchStatistics::default();
        for second in [1000, 1010, 400, 1020] {
            statistics.record(at(second), &rows(1));
        }

        assert_eq!(statistics.throughput().iter().map(|point| point.rows).sum::<u64>(), 4);
        assert_eq!(statistics.rate(at(1020)).rows, 4);
    }

    #[test]
    fn tokens_are_kept_for_a_bounded_number_of_models() {
        let mut statistics = BatchStatistics::default();
        for model in 0..100 {
            let usage = Usage { total_tokens: 1, ..Usage::default() };
            let usage = BTreeMap::from([(format!("m{model}"), usage)]);
            statistics.record(at(0), &RecordedRows { rows: 1, usage, ..RecordedRows::default() });
        }

        assert_eq!(statistics.usage().len(), MAX_MODELS + 1);
        assert_eq!(statistics.usage()[OTHERS].total_tokens, 36);
    }
}

//! When a batch will end.
//!
//! Rows end at the rate of the last minute until none waits. Then the rows that are under way end one by one, and the
//! last of them takes the longest: the largest of n times that are spread as exponential ones, of mean s, is about
//! s (ln n + 0.58) in the median and s (ln n + 2.25) at the 90th percentile (Gumbel's distribution).
//!
//! The estimate of a paused batch is that of one which is resumed now, at the rate from before the pause.

use std::time::Duration;

use super::{Efforts, ProgressFacts, ProgressReason, ReasonCode, RowCounts};
use crate::domain::batch::BatchStatus;
use crate::domain::time::Timestamp;

/// Rows that must have been recorded in the last minute for their rate to be believed.
const ENOUGH: u64 = 5;
/// The longest time that is estimated, in seconds: ten years.
const MOST: f64 = 3.2e8;

/// When a batch will end, if it goes on as it does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// As likely earlier as later.
    pub ends_at: Timestamp,
    /// Nine times of ten earlier.
    pub ends_at_p90: Timestamp,
}

impl Estimate {
    /// Whether the batch ends before its window closes at a time; `None` if that is uncertain.
    pub(super) fn meets(self, closes_at: Timestamp) -> Option<bool> {
        if self.ends_at_p90 <= closes_at {
            Some(true)
        } else if self.ends_at > closes_at {
            Some(false)
        } else {
            None
        }
    }
}

pub(super) fn estimate(
    facts: &ProgressFacts<'_>,
    efforts: &Efforts<'_>,
    rows: RowCounts,
    reason: Option<&ProgressReason>,
) -> Option<Estimate> {
    let left = rows.waiting + rows.running + rows.retrying;
    if facts.batch.status != BatchStatus::InProgress || left == 0 {
        return None;
    }
    let begins = match reason {
        Some(reason) if reason.code.stops_rows() => reason.until?,
        _ => facts.now,
    };
    let mean = seconds_per_row(efforts);
    let (rate, measured) = rate(facts, rows, mean)?;
    let last = count(rows.running.min(left));
    let (median, p90) = if last > 0.0 { (last.ln() + 0.58, last.ln() + 2.25) } else { (0.0, 0.0) };
    let until_none_waits = (count(left) - last).max(0.0) / rate;
    let tail = mean.unwrap_or(last / rate);
    // Recorded rows of times as spread as exponential ones have a count with twice Poisson's variance.
    let uncertain = 1.28 * (2.0 / count(measured.max(1))).sqrt();
    let at = |seconds: f64| begins.max(facts.now).plus(Duration::from_secs_f64(seconds.clamp(0.0, MOST)));
    Some(Estimate {
        ends_at: at(until_none_waits + tail * median),
        ends_at_p90: at(until_none_waits * (1.0 + uncertain) + tail * p90),
    })
}

/// Rows in a second, and the rows by which it was measured: those of the last minute; if there are too few, those under
/// way by the time that one takes; and else those of the whole course.
fn rate(facts: &ProgressFacts<'_>, rows: RowCounts, mean: Option<f64>) -> Option<(f64, u64)> {
    let measured_at = facts.batch.pause.as_ref().map_or(facts.now, |pause| pause.since);
    let recent = facts.statistics.rate(measured_at);
    if recent.rows >= ENOUGH {
        return Some((recent.rows_per_second(), recent.rows));
    }
    if let Some(mean) = mean.filter(|_| rows.running > 0) {
        return Some((count(rows.running) / mean, rows.running));
    }
    let points = facts.statistics.throughput();
    let recorded: u64 = points.iter().map(|point| point.rows).sum();
    let seconds: f64 = points.iter().map(|point| f64::from(point.seconds)).sum();
    (recorded > 0).then(|| (count(recorded) / seconds.max(1.0), recorded))
}

/// The time that a row of the batch takes, as the daemons measure it.
fn seconds_per_row(efforts: &Efforts<'_>) -> Option<f64> {
    let known = efforts.models.iter().filter_map(|model| Some((model.seconds_per_row?, count(model.running.max(1)))));
    let (sum, weight) = known.fold((0.0, 0.0), |(sum, weight), (seconds, rows)| (sum + seconds * rows, weight + rows));
    (sum > 0.0).then(|| sum / weight)
}

impl ReasonCode {
    /// Whether no row can begin as long as it holds.
    fn stops_rows(self) -> bool {
        matches!(self, Self::UpstreamDown | Self::NoUpstream | Self::NoWorker | Self::RateLimited)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of rows are far below 2^52")]
fn count(rows: u64) -> f64 {
    rows as f64
}

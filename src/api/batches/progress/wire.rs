//! The progress of a batch as it is on the wire.

use serde::Serialize;
use utoipa::ToSchema;

use crate::actions::ObservedBatch;
use crate::domain::cost::{Prices, amount};
use crate::domain::failures::FailureTally;
use crate::domain::progress::{Estimate, ProgressReason, RowCounts};
use crate::domain::statistics::{RecordedRate, ThroughputPoint};
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

/// How far a batch is, when it will end, and why it is no faster.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchProgressObject {
    /// Always `batch.progress`.
    object: &'static str,
    batch_id: String,
    /// The status of the batch.
    status: &'static str,
    /// `validating`, `waiting`, `running`, `paused`, `finalizing` or `ended`.
    phase: &'static str,
    rows: ProgressRows,
    rate: ProgressRate,
    /// When it will end, if it goes on as it does; null if nothing is known about it.
    #[schema(required)]
    estimate: Option<ProgressEstimate>,
    window: ProgressWindow,
    /// Why it does not go faster; null if it goes as fast as its upstream has room for.
    #[schema(required)]
    reason: Option<ProgressReasonObject>,
    /// The failures by code and status, the most frequent first: at most 33 kinds.
    failures: Vec<ProgressFailure>,
    /// The tokens of the rows that have ended.
    usage: ProgressUsage,
    /// What they cost, by the prices of the settings file; null if it has none for one of the models.
    #[schema(required)]
    cost: Option<ProgressCost>,
    /// The course since the first row was recorded: at most 448 points. Only with `include=throughput`.
    #[serde(skip_serializing_if = "Option::is_none")]
    throughput: Option<Vec<ProgressPoint>>,
}

/// Where the rows are: they add up to the total.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressRows {
    total: u64,
    /// Rows that were not begun, or will never be if the batch has ended.
    waiting: u64,
    /// Rows with a call under way.
    running: u64,
    /// Rows whose last attempt failed, and which wait for the next.
    retrying: u64,
    completed: u64,
    failed: u64,
}

/// How fast rows were recorded lately.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressRate {
    rows_per_second: f64,
    tokens_per_second: f64,
    /// Over so many seconds: 60, or fewer if the first row was recorded later.
    seconds: u32,
}

/// When the batch will end, in Unix seconds.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressEstimate {
    /// As likely earlier as later.
    ends_at: i64,
    /// Nine times of ten earlier.
    ends_at_p90: i64,
}

/// The completion window.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressWindow {
    /// Unix seconds.
    closes_at: i64,
    /// Whether the batch ends, or has ended, before; null if that is uncertain.
    #[schema(required)]
    will_be_met: Option<bool>,
}

/// Why the batch does not go faster.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressReasonObject {
    /// `validating`, `project_limit`, `paused`, `no_worker`, `no_upstream`, `upstream_down`, `rate_limited`,
    /// `behind_other_batches`, `retrying`, `waiting_for_capacity`, `tail` or `finalizing`. More may follow.
    code: &'static str,
    /// The same as a sentence.
    message: String,
    /// Since when, in Unix seconds; null if that is not known.
    #[schema(required)]
    since: Option<i64>,
    /// Until when, in Unix seconds; null if that is not known.
    #[schema(required)]
    until: Option<i64>,
}

/// Rows that failed alike.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressFailure {
    /// The code of the server's error, or that of the error line.
    code: String,
    /// The HTTP status of the server's answer; null if there was none.
    #[schema(required)]
    status_code: Option<u16>,
    /// How many there are.
    rows: u64,
    sample: ProgressSample,
}

/// One of the rows that failed alike.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressSample {
    /// The row's name, of at most 512 characters.
    custom_id: String,
    /// What is said about it, of at most 300 characters.
    message: String,
}

/// Tokens.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the names of the wire")]
pub struct ProgressUsage {
    input_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    reasoning_tokens: u64,
    total_tokens: u64,
}

/// What tokens cost. The amounts are decimal numbers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressCost {
    currency: String,
    /// Of the rows that have ended.
    amount: String,
    /// Of all rows, if the others cost what those did; null until a row has ended.
    #[schema(required)]
    estimated_total: Option<String>,
}

/// What was recorded in a part of the course.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressPoint {
    /// Unix seconds.
    at: i64,
    /// How long the part is.
    seconds: u32,
    rows: u64,
    tokens: u64,
}

impl BatchProgressObject {
    /// What was observed, with the throughput if that is asked for.
    pub(in crate::api::batches) fn new(
        observed: &ObservedBatch,
        prices: Option<&Prices>,
        has_throughput: bool,
    ) -> Self {
        let ObservedBatch { batch, statistics, progress } = observed;
        let points = || statistics.throughput().into_iter().map(ProgressPoint::from).collect();
        Self {
            object: "batch.progress",
            batch_id: batch.id.to_string(),
            status: batch.status.as_str(),
            phase: progress.phase.as_str(),
            rows: progress.rows.into(),
            rate: progress.rate.into(),
            estimate: progress.estimate.map(ProgressEstimate::from),
            window: ProgressWindow { closes_at: batch.expires_at.seconds(), will_be_met: progress.will_meet_window },
            reason: progress.reason.clone().map(ProgressReasonObject::from),
            failures: statistics.failures().tallies().into_iter().map(ProgressFailure::from).collect(),
            usage: batch.usage.into(),
            cost: prices.and_then(|prices| ProgressCost::new(observed, prices)),
            throughput: has_throughput.then(points),
        }
    }
}

impl ProgressCost {
    fn new(observed: &ObservedBatch, prices: &Prices) -> Option<Self> {
        let cost = prices.of_batch(observed.statistics.usage(), observed.batch.counts)?;
        Some(Self {
            currency: prices.currency.clone(),
            amount: amount(cost.so_far),
            estimated_total: cost.estimated_total.map(amount),
        })
    }
}

impl From<RowCounts> for ProgressRows {
    fn from(rows: RowCounts) -> Self {
        let RowCounts { total, waiting, running, retrying, completed, failed } = rows;
        Self { total, waiting, running, retrying, completed, failed }
    }
}

impl From<RecordedRate> for ProgressRate {
    fn from(rate: RecordedRate) -> Self {
        let rounded = |rate: f64| (rate * 100.0).round() / 100.0;
        Self {
            rows_per_second: rounded(rate.rows_per_second()),
            tokens_per_second: rounded(rate.tokens_per_second()),
            seconds: rate.seconds,
        }
    }
}

impl From<Estimate> for ProgressEstimate {
    fn from(estimate: Estimate) -> Self {
        Self { ends_at: estimate.ends_at.seconds(), ends_at_p90: estimate.ends_at_p90.seconds() }
    }
}

impl From<ProgressReason> for ProgressReasonObject {
    fn from(reason: ProgressReason) -> Self {
        Self {
            code: reason.code.as_str(),
            message: reason.message,
            since: reason.since.map(Timestamp::seconds),
            until: reason.until.map(Timestamp::seconds),
        }
    }
}

impl From<FailureTally> for ProgressFailure {
    fn from(tally: FailureTally) -> Self {
        let sample = ProgressSample { custom_id: tally.sample.custom_id, message: tally.sample.message };
        Self { code: tally.kind.code, status_code: tally.kind.status, rows: tally.rows, sample }
    }
}

impl From<Usage> for ProgressUsage {
    fn from(usage: Usage) -> Self {
        let Usage { input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens } = usage;
        Self { input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens }
    }
}

impl From<ThroughputPoint> for ProgressPoint {
    fn from(point: ThroughputPoint) -> Self {
        Self { at: point.at.seconds(), seconds: point.seconds, rows: point.rows, tokens: point.tokens }
    }
}

//! All metrics of the program: one function for each event. No other module has a metric's name.
//!
//! Labels are small sets, never ids: fixed ones, and the names of a bounded number of models.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::time::Timestamp;

const ATTEMPT_SECONDS: &str = "batchwright_attempt_seconds";
const FIRST_CALL_SECONDS: &str = "batchwright_time_to_first_call_seconds";
const STEP_SECONDS: &str = "batchwright_step_seconds";
const KEEP_UP_EVERY: Duration = Duration::from_secs(5);

/// Starts collecting, and returns the handle that renders the metrics for `GET /metrics`.
///
/// # Errors
/// Metrics are already being collected.
pub fn start() -> Result<PrometheusHandle, BuildError> {
    let buckets = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
    let buckets_of_waits =
        [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(ATTEMPT_SECONDS.to_owned()), &buckets)?
        .set_buckets_for_metric(Matcher::Full(STEP_SECONDS.to_owned()), &buckets)?
        .set_buckets_for_metric(Matcher::Full(FIRST_CALL_SECONDS.to_owned()), &buckets_of_waits)?
        .install_recorder()?;
    describe_counter!("batchwright_files_total", "Files uploaded");
    describe_counter!("batchwright_file_bytes_total", "Bytes of files uploaded");
    describe_counter!("batchwright_batches_created_total", "Batches created");
    describe_counter!("batchwright_batches_ended_total", "Batches that reached a terminal status after they ran");
    describe_histogram!(
        FIRST_CALL_SECONDS,
        "How long a batch waited from its creation until the first call of its first model, counted by the worker that \
         made it. A batch counts again if a worker took it over that found no result of it"
    );
    describe_counter!("batchwright_attempts_total", "Attempts to run a request, by how they ended");
    describe_histogram!(ATTEMPT_SECONDS, "How long an attempt took, by how it ended");
    describe_gauge!("batchwright_parked_rows", "Rows that wait for something that is away, by the code of the failure");
    describe_gauge!(
        "batchwright_backlog_rows",
        "Rows of the whole deployment without a result yet, by model: the same from every worker"
    );
    describe_gauge!(
        "batchwright_backlog_oldest_timestamp_seconds",
        "When the first batch with such rows was created, by model; 0 if there is none"
    );
    describe_gauge!(
        "batchwright_backlog_deadline_timestamp_seconds",
        "When the first window of such rows closes, by model; 0 if there is none"
    );
    describe_counter!(
        "batchwright_upstream_refusals_total",
        "Calls that an upstream did not take: `busy` (429, 503, 529), `gone` (not reached, broken off, 502, 504) or \
         `unavailable` (it takes no row at all, such as 401)"
    );
    describe_gauge!("batchwright_permits_held", "Rows that call the upstream, or may at any moment");
    describe_counter!("batchwright_steps_total", "Calls of models and tools within requests, by how they ended");
    describe_histogram!(STEP_SECONDS, "How long a call within a request took, by how it ended");
    describe_counter!("batchwright_lines_recorded_total", "Lines recorded in output and error files");
    describe_counter!("batchwright_flushes_total", "Commits that recorded lines");
    describe_counter!("batchwright_flush_errors_total", "Attempts to record lines that failed and were repeated");
    describe_counter!("batchwright_ledger_violations_total", "Recordings refused because they contradict the ledger");
    describe_gauge!("batchwright_concurrency_limit", "Calls that may be under way: all, or this worker's share");
    describe_gauge!(
        "batchwright_concurrency_chosen",
        "Calls that may be under way at an upstream, as its answers show: the sum over its models in use"
    );
    describe_gauge!("batchwright_upstream_takes_calls", "1, or 0 while an upstream takes no calls of a model in use");
    describe_gauge!("batchwright_upstream_rows", "Rows that call an upstream, or may at any moment");
    describe_counter!("batchwright_loop_turns_total", "Runs of each of the daemon's loops");
    describe_counter!("batchwright_loop_errors_total", "Runs that failed");
    describe_gauge!("batchwright_loop_failed_turns", "Runs that have failed in a row, up to the last one");
    describe_counter!("batchwright_item_errors_total", "Batches, files or blobs that a loop could not process");
    describe_gauge!("batchwright_items_in_backoff", "Items that a loop could not process and will retry");
    describe_counter!("batchwright_unreadable_rows_total", "Database rows that were left out because they are corrupt");
    describe_counter!("batchwright_webhook_tries_total", "Events posted to webhooks, by how that ended");
    Ok(handle)
}

/// Adds new samples to the histograms, for ever. Without this they would pile up until `GET /metrics`.
pub async fn keep_up(handle: PrometheusHandle) {
    loop {
        tokio::time::sleep(KEEP_UP_EVERY).await;
        handle.run_upkeep();
    }
}

/// A file was uploaded.
pub fn file_created(bytes: u64) {
    counter!("batchwright_files_total").increment(1);
    counter!("batchwright_file_bytes_total").increment(bytes);
}

/// An upstream takes calls again, or takes none any more.
pub fn upstream_takes_calls(upstream: &str, takes: bool) {
    gauge!("batchwright_upstream_takes_calls", "upstream" => upstream.to_owned()).set(f64::from(u8::from(takes)));
}

/// A batch was created.
pub fn batch_created() {
    counter!("batchwright_batches_created_total").increment(1);
}

/// A batch that ran reached its terminal status.
pub fn batch_ended() {
    counter!("batchwright_batches_ended_total").increment(1);
}

/// The first call of a batch begins, so long after its creation.
pub fn first_call_begins(waited: Duration) {
    histogram!(FIRST_CALL_SECONDS).record(waited);
}

/// A step of a row ended, or an attempt at it.
pub fn step_ended(is_model_call: bool, is_well: bool, took: Duration) {
    let kind = if is_model_call { "model_call" } else { "tool_call" };
    let ended = if is_well { "completed" } else { "failed" };
    counter!("batchwright_steps_total", "kind" => kind, "ended" => ended).increment(1);
    histogram!(STEP_SECONDS, "kind" => kind, "ended" => ended).record(took.as_secs_f64());
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It has an answer.
    Completed,
    /// It failed for good.
    Failed,
    /// It failed and will be retried.
    Retried,
    /// It failed for want of something that is away, and does not count.
    Parked,
}

/// An attempt ended.
pub fn attempt_ended(how: AttemptEnd, took: Duration) {
    /// Looked up once, because this runs for every row.
    static HANDLES: LazyLock<[(Counter, Histogram); 4]> = LazyLock::new(|| {
        ["completed", "failed", "retried", "parked"].map(|how| {
            (counter!("batchwright_attempts_total", "ended" => how), histogram!(ATTEMPT_SECONDS, "ended" => how))
        })
    });
    let (attempts, seconds) = &HANDLES[how as usize];
    attempts.increment(1);
    seconds.record(took);
}

/// This many rows are parked for failures of a code.
pub fn rows_parked(code: &'static str, rows: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_parked_rows", "reason" => code).set(rows as f64);
}

/// So many rows of a model have no result yet: when the first of their batches was created, and when the first of their
/// windows closes.
pub fn backlog_of(model: String, rows: u64, oldest: Option<Timestamp>, deadline: Option<Timestamp>) {
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds, and no more rows than billions")]
    let seconds = |time: Option<Timestamp>| time.map_or(0, Timestamp::seconds) as f64;
    #[expect(clippy::cast_precision_loss, reason = "not beyond billions")]
    gauge!("batchwright_backlog_rows", "model" => model.clone()).set(rows as f64);
    gauge!("batchwright_backlog_oldest_timestamp_seconds", "model" => model.clone()).set(seconds(oldest));
    gauge!("batchwright_backlog_deadline_timestamp_seconds", "model" => model).set(seconds(deadline));
}

/// An upstream did not take a call: `busy`, `gone` or `unavailable`.
pub fn call_refused(upstream: &str, kind: &'static str) {
    counter!("batchwright_upstream_refusals_total", "upstream" => upstream.to_owned(), "kind" => kind).increment(1);
}

/// So many rows are under way at an upstream.
pub fn rows_at_upstream(upstream: &str, rows: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_upstream_rows", "upstream" => upstream.to_owned()).set(rows as f64);
}

/// So many rows have a permit.
pub fn permits_held(permits: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_permits_held").set(permits as f64);
}

/// A commit recorded lines.
pub fn flush_recorded(lines: usize) {
    counter!("batchwright_lines_recorded_total").increment(lines as u64);
    counter!("batchwright_flushes_total").increment(1);
}

/// A commit of lines failed and will be retried.
pub fn flush_failed() {
    counter!("batchwright_flush_errors_total").increment(1);
}

/// A commit was refused because it contradicts the ledger, which only a bug of this program can cause.
pub fn ledger_violated() {
    counter!("batchwright_ledger_violations_total").increment(1);
}

/// So many calls may be under way at an upstream, as its answers show.
pub fn concurrency_chosen(upstream: &str, calls: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_concurrency_chosen", "upstream" => upstream.to_owned()).set(calls as f64);
}

/// The daemon's limit of calls under way was set.
pub fn concurrency_limited_to(calls: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_concurrency_limit").set(calls as f64);
}

/// A loop of the daemon ran once.
pub fn loop_ticked(name: &'static str) {
    counter!("batchwright_loop_turns_total", "loop" => name).increment(1);
}

/// A run of a loop failed.
pub fn loop_failed(name: &'static str) {
    counter!("batchwright_loop_errors_total", "loop" => name).increment(1);
}

/// This many runs of a loop have failed in a row.
pub fn ticks_failed(name: &'static str, ticks: u32) {
    gauge!("batchwright_loop_failed_turns", "loop" => name).set(f64::from(ticks));
}

/// A loop could not process one of its items.
pub fn item_failed(name: &'static str) {
    counter!("batchwright_item_errors_total", "loop" => name).increment(1);
}

/// This many items of a loop wait for a retry.
pub fn items_in_backoff(name: &'static str, items: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_items_in_backoff", "loop" => name).set(items as f64);
}

/// How posting an event to a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookTryEnd {
    /// The receiver has it.
    Delivered,
    /// It is tried again.
    Retried,
    /// It was given up.
    Failed,
}

/// An event was posted to a webhook.
pub fn webhook_tried(how: WebhookTryEnd) {
    let how = match how {
        WebhookTryEnd::Delivered => "delivered",
        WebhookTryEnd::Retried => "retried",
        WebhookTryEnd::Failed => "failed",
    };
    counter!("batchwright_webhook_tries_total", "ended" => how).increment(1);
}

/// A row of a table was left out of an answer.
pub fn row_unreadable(table: &'static str) {
    counter!("batchwright_unreadable_rows_total", "table" => table).increment(1);
}

//! Every metric of the program: one function for each event, and no name anywhere else.
//!
//! Labels are small fixed sets, never ids.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

const ATTEMPT_SECONDS: &str = "batchwright_attempt_seconds";
const STEP_SECONDS: &str = "batchwright_step_seconds";
const KEEP_UP_EVERY: Duration = Duration::from_secs(5);

/// Starts collecting, and returns what renders the metrics for `GET /metrics`.
///
/// # Errors
/// When metrics are collected already.
pub fn start() -> Result<PrometheusHandle, BuildError> {
    let buckets = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(ATTEMPT_SECONDS.to_owned()), &buckets)?
        .set_buckets_for_metric(Matcher::Full(STEP_SECONDS.to_owned()), &buckets)?
        .install_recorder()?;
    describe_counter!("batchwright_files_total", "Files uploaded");
    describe_counter!("batchwright_file_bytes_total", "Bytes of files uploaded");
    describe_counter!("batchwright_batches_created_total", "Batches created");
    describe_counter!("batchwright_batches_ended_total", "Batches that reached a terminal status after they ran");
    describe_counter!("batchwright_attempts_total", "Attempts to run a request, by how they ended");
    describe_histogram!(ATTEMPT_SECONDS, "How long an attempt took, by how it ended");
    describe_counter!("batchwright_steps_total", "Calls of models and tools within requests, by how they ended");
    describe_histogram!(STEP_SECONDS, "How long a call within a request took, by how it ended");
    describe_counter!("batchwright_lines_recorded_total", "Lines recorded in output and error files");
    describe_counter!("batchwright_flushes_total", "Commits that recorded lines");
    describe_counter!("batchwright_flush_errors_total", "Attempts to record lines that failed and were repeated");
    describe_counter!("batchwright_ledger_violations_total", "Recordings refused because they contradict the ledger");
    describe_gauge!("batchwright_concurrency_limit", "Calls that may be under way: all, or this worker's share");
    describe_counter!("batchwright_loop_turns_total", "Turns of each of the daemon's loops");
    describe_counter!("batchwright_loop_errors_total", "Turns that failed");
    describe_gauge!("batchwright_loop_failed_turns", "Turns that have failed one after the other, up to the last one");
    describe_counter!("batchwright_item_errors_total", "Batches, files or blobs that a loop could not deal with");
    describe_gauge!("batchwright_items_in_backoff", "Those that a loop could not deal with and will try again");
    describe_counter!("batchwright_unreadable_rows_total", "Database rows that were left out because they are corrupt");
    Ok(handle)
}

/// Folds what was measured into its sums, for ever. Without this it would pile up until somebody asks for it.
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

/// A batch was created.
pub fn batch_created() {
    counter!("batchwright_batches_created_total").increment(1);
}

/// A batch that ran reached its terminal status.
pub fn batch_ended() {
    counter!("batchwright_batches_ended_total").increment(1);
}

/// A step of a row ended, or an attempt at it.
pub fn step_ended(is_model_call: bool, is_well: bool, took: Duration) {
    let kind = if is_model_call { "model_call" } else { "tool_call" };
    let ended = if is_well { "completed" } else { "failed" };
    counter!("batchwright_steps_total", "kind" => kind, "ended" => ended).increment(1);
    histogram!(STEP_SECONDS, "kind" => kind, "ended" => ended).record(took.as_secs_f64());
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With an answer.
    Completed,
    /// For good, without one.
    Failed,
    /// To be tried again.
    Retried,
}

/// An attempt ended.
pub fn attempt_ended(how: AttemptEnd, took: Duration) {
    /// Looked up once: this runs for every row.
    static HANDLES: LazyLock<[(Counter, Histogram); 3]> = LazyLock::new(|| {
        ["completed", "failed", "retried"].map(|how| {
            (counter!("batchwright_attempts_total", "ended" => how), histogram!(ATTEMPT_SECONDS, "ended" => how))
        })
    });
    let (attempts, seconds) = &HANDLES[how as usize];
    attempts.increment(1);
    seconds.record(took);
}

/// A commit recorded lines.
pub fn flush_recorded(lines: usize) {
    counter!("batchwright_lines_recorded_total").increment(lines as u64);
    counter!("batchwright_flushes_total").increment(1);
}

/// Lines could not be recorded and are tried again.
pub fn flush_failed() {
    counter!("batchwright_flush_errors_total").increment(1);
}

/// A recording was refused because it contradicts the ledger, which only a fault of this program can do.
pub fn ledger_violated() {
    counter!("batchwright_ledger_violations_total").increment(1);
}

/// How many calls the daemon may have under way from now on.
pub fn concurrency_limited_to(calls: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_concurrency_limit").set(calls as f64);
}

/// A loop of the daemon turned.
pub fn loop_turned(name: &'static str) {
    counter!("batchwright_loop_turns_total", "loop" => name).increment(1);
}

/// A turn of a loop failed.
pub fn loop_failed(name: &'static str) {
    counter!("batchwright_loop_errors_total", "loop" => name).increment(1);
}

/// So many turns of a loop have failed one after the other.
pub fn turns_failed(name: &'static str, turns: u32) {
    gauge!("batchwright_loop_failed_turns", "loop" => name).set(f64::from(turns));
}

/// A loop could not deal with one of its items.
pub fn item_failed(name: &'static str) {
    counter!("batchwright_item_errors_total", "loop" => name).increment(1);
}

/// So many items wait until a loop tries them again.
pub fn items_in_backoff(name: &'static str, items: usize) {
    #[expect(clippy::cast_precision_loss, reason = "not beyond thousands")]
    gauge!("batchwright_items_in_backoff", "loop" => name).set(items as f64);
}

/// A row of a table was left out of an answer.
pub fn row_unreadable(table: &'static str) {
    counter!("batchwright_unreadable_rows_total", "table" => table).increment(1);
}

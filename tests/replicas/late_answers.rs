//! A lease is given back, and the answer comes late or not at all: meanwhile the same worker has it again.

use crate::common::builders::rows;
use crate::common::process::Process;
use crate::stage::{Stage, number};

const ROWS: usize = 130;

/// A worker whose first leases cannot be read, so that it gives them back, and learns of that 1.5 seconds later.
async fn a_worker_that_hears_late_runs_each_row_once(stage: Stage) {
    let mut command = stage.command_at("127.0.0.1:0", &["--max-concurrency", "16"]);
    command.env("FAILPOINTS", "blob.read=3*return(error)->off;lease.given-back=3*return(1500)->off");
    let server = Process::start(command).await;
    let client = server.client();
    let input = rows(ROWS);

    let id = client.submit(input.clone()).await;
    let batch = client.wait_for(&id, "completed").await;

    let log = server.log();
    assert!(log.contains("a lease could not be given back"), "{log}");
    assert!(!log.contains("a lease that nobody runs"), "a run was taken for over while it went on: {log}");
    assert_eq!(number(&batch["request_counts"]["completed"]), ROWS as u64);
    assert_eq!(stage.sent().await, (ROWS as u64, 0), "a row was run twice");
    stage.prove(&client, &input, &batch, vec![server]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_lease_that_was_given_back_without_an_answer_is_run_once() {
    a_worker_that_hears_late_runs_each_row_once(Stage::sqlite(&["--latency", "1500ms"]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_lease_that_was_given_back_without_an_answer_is_run_once() {
    a_worker_that_hears_late_runs_each_row_once(Stage::postgres(&["--latency", "1500ms"]).await).await;
}

//! Thousands of rows from upload to proof, on both databases.

use serde_json::Value;

use crate::common::builders::rows;
use crate::common::client::Results;
use crate::common::process::Process;
use crate::databases::postgres_url;
use crate::stage::Stage;

/// The counters of a simulator.
pub async fn stats(simulator: &Process) -> Value {
    simulator.client().get("/stats").await.ok()
}

/// A counter or a number of tokens.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a count: {value}"))
}

/// The tokens that the lines of an output file say were used, by the names of the batch's own sums.
fn used(results: &Results) -> [(&'static str, u64); 3] {
    let names =
        [("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"), ("total_tokens", "total_tokens")];
    let sum = |member| results.output.iter().map(|line| number(&line["response"]["body"]["usage"][member])).sum();
    names.map(|(name, member)| (name, sum(member)))
}

fn assert_counts(batch: &Value, total: u64, failed: u64) {
    let counts = &batch["request_counts"];
    let counted = ["total", "completed", "failed"].map(|name| number(&counts[name]));
    assert_eq!(counted, [total, total - failed, failed]);
}

#[tokio::test]
async fn ten_thousand_rows_are_each_answered_once_though_some_calls_fail() {
    let stage = Stage::new(&["--latency", "0ms", "--fail-rate", "0.02"]).await;
    let server = stage.serve(&["--log", "warn,batchwright::cli=info"]).await;
    let client = server.client();
    let input = rows(10_000);

    let id = client.submit(input.clone()).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_counts(&batch, 10_000, 0);
    let verdict = client.verify(&input, &batch).await;
    assert!(verdict.holds() && verdict.output_lines == 10_000, "{verdict}");
    for (name, tokens) in used(&client.results(&batch).await) {
        assert_eq!(number(&batch["usage"][name]), tokens, "{name}");
    }
    let stats = stats(&stage.simulator).await;
    let failures = number(&stats["failures"]);
    assert!(failures > 100, "{stats}");
    assert_eq!(number(&stats["requests"]), 10_000 + failures);
    assert_eq!(number(&stats["repeats"]), failures);
}

#[tokio::test]
async fn two_thousand_rows_on_postgres_have_one_line_each() {
    let simulator = Process::simulate(&["--latency", "0ms", "--fail-rate", "0.02"]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let blobs = format!("file://{}", directory.path().display());
    let (upstream, database) = (format!("{}/v1", simulator.base_url), postgres_url().await);
    let flags = ["--upstream", &upstream, "--database-url", &database, "--blob-url", &blobs, "--max-retries", "0"];
    let server = Process::serve(&flags).await;
    let client = server.client();
    let input = rows(2_000);

    let id = client.submit(input.clone()).await;
    let batch = client.wait_for(&id, "completed").await;

    let failures = number(&stats(&simulator).await["failures"]);
    assert!(failures > 10, "{failures}");
    assert_counts(&batch, 2_000, failures);
    let verdict = client.verify(&input, &batch).await;
    assert!(verdict.holds() && verdict.error_lines == failures, "{verdict}");
    for (name, tokens) in used(&client.results(&batch).await) {
        assert_eq!(number(&batch["usage"][name]), tokens, "{name}");
    }
    let stats = stats(&simulator).await;
    assert_eq!((number(&stats["requests"]), number(&stats["repeats"])), (2_000, 0));
}

//! Pauses are kept by every replica, whatever happens to the others.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::stage::{Stage, number};

const ROWS: u64 = 600;
/// Longer than a lease: what a dead worker had could be taken over within.
const QUIET: Duration = Duration::from_secs(4);

/// The rows that the upstream was sent, once it is sent no more for a while.
async fn sent_at_rest(stage: &Stage) -> u64 {
    let (mut sent, mut since) = (0, Instant::now());
    eventually("the upstream to be sent nothing", async || {
        let now = number(&stage.upstream_at_rest().await["requests"]);
        if now != sent {
            (sent, since) = (now, Instant::now());
        }
        (since.elapsed() > QUIET).then_some(sent)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_on_every_replica_and_no_kill_loses_a_row() {
    let stage = Stage::postgres(&["--latency", "200ms"]).await;
    let worker = async || stage.serve(&["--max-concurrency", "8", "--lease", "2s"]).await;
    let (first, second, mut third) = (worker().await, worker().await, worker().await);
    let client = first.client();
    let input = rows(usize::try_from(ROWS).expect("few"));
    let id = client.submit(input.clone()).await;
    client.wait_for_completed(&id, 60).await;

    client.post(&format!("/v1/batches/{id}/pause"), &json!({})).await.ok();
    // While it holds leases of rows that it has not sent.
    third.kill();
    let sent = sent_at_rest(&stage).await;
    let mut fourth = worker().await;
    assert_eq!(sent_at_rest(&stage).await, sent, "no replica sends rows of a paused batch");
    assert_eq!(client.batch(&id).await["status"], "in_progress");
    assert!(sent < ROWS, "the batch was over too soon");
    fourth.kill();

    let resumed = second.client().post(&format!("/v1/batches/{id}/resume"), &json!({})).await;
    assert_eq!(resumed.ok()["status"], "in_progress");
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(number(&batch["request_counts"]["completed"]), ROWS);
    let (sent, repeats) = stage.sent().await;
    assert_eq!(sent, ROWS);
    assert!(repeats <= 16, "only what was under way at the kill is sent again, not {repeats} rows");
    stage.prove(&client, &input, &batch, vec![first, second]).await;
}

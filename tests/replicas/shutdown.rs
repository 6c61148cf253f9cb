//! SIGTERM, once and twice.

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::stage::{Stage, number};

/// Long enough that nobody takes anything over because somebody is silent.
const LEASE: [&str; 2] = ["--lease", "1h"];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_gives_back_what_it_has_not_run_at_once() {
    let stage = Stage::postgres(&["--latency", "lognormal:60ms:0.5"]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let client = api.client();
    let flags = [&LEASE[..], &["--role", "worker", "--max-concurrency", "16"]].concat();
    let mut first = stage.serve(&flags).await;
    let input = rows(2_000);
    let id = client.submit(input.clone()).await;
    client.wait_for_completed(&id, 200).await;

    let ended = first.terminate().await;
    let second = stage.serve(&flags).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(ended.code(), Some(0), "{}", first.log());
    assert_eq!(stage.sent().await, (2_000, 0), "calls in flight were waited for and recorded");
    stage.prove(&client, &input, &batch, vec![second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_worker_leaves_what_it_cannot_run_to_others() {
    let stage = Stage::postgres(&["--latency", "60s"]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let client = api.client();
    let worker = async |concurrency: &str, grace: &str| {
        let calls = ["--max-concurrency", concurrency, "--concurrency", "fixed"];
        stage.serve(&[&LEASE[..], &calls, &["--role", "worker", "--grace", grace]].concat()).await
    };
    let in_flight = async |count: u64| {
        let seen = async || (number(&stage.upstream().await["in_flight"]) == count).then_some(());
        eventually(&format!("{count} calls to be in flight"), seen).await;
    };
    let mut large = worker("64", "0s").await;
    // A lease for each, which the large worker has alone.
    let batches = [client.submit(rows(200)).await, client.submit(rows(100)).await];
    in_flight(56).await;
    large.terminate().await;

    let small = worker("2", "0s").await;
    in_flight(2).await;
    let other = worker("64", "0s").await;
    in_flight(58).await;

    for id in batches {
        client.cancel(&id).await.ok();
        client.wait_for(&id, "cancelled").await;
    }
    drop((small, other));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_program_at_once_and_what_was_recorded_stays() {
    let stage = Stage::sqlite(&["--latency", "1ms"]).await;
    let mut server = stage.serve(&["--grace", "1h", "--max-concurrency", "8"]).await;
    let client = server.client();
    let input = rows(3_000);
    let id = client.submit(input.clone()).await;
    client.wait_for_completed(&id, 300).await;

    // Slower than any test: the first signal would wait for these.
    stage.simulator.signal("STOP");
    server.signal("TERM");
    eventually("the first signal to be heard", async || server.log().contains("stopping").then_some(())).await;
    let ended = server.terminate().await;
    stage.simulator.signal("CONT");
    let recorded = stage.recorded().await;

    assert_eq!(ended.code(), Some(0), "{}", server.log());
    let (sent, _) = stage.sent().await;
    let server = stage.serve(&[]).await;
    let client = server.client();
    let batch = client.wait_for(&id, "completed").await;
    assert_eq!(number(&batch["request_counts"]["completed"]), 3_000);
    assert!(stage.sent().await.1 <= sent - recorded, "only what was not recorded is sent again");
    stage.prove(&client, &input, &batch, vec![server]).await;
}

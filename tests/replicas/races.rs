//! Cancelling and closing windows while the last rows end, and creation by several at once.

use std::collections::BTreeSet;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;

use crate::common::builders::rows;
use crate::common::client::{Client, new_batch, send, text};
use crate::common::eventually::eventually;
use crate::common::process::Process;
use crate::stage::{Stage, setting};

const ROWS: usize = 40;

/// Two replicas that both do everything, so that two finalizers meet.
async fn pair(stage: &Stage) -> Vec<Process> {
    let flags = ["--completion-windows", "24h,1s", "--lease", "2s", "--max-concurrency", "4"];
    vec![stage.serve(&flags).await, stage.serve(&flags).await]
}

async fn wait_for_end(client: &Client, id: &str) -> serde_json::Value {
    eventually("the batch to end", async || {
        let batch = client.batch(id).await;
        matches!(text(&batch["status"]), "completed" | "cancelled" | "expired").then_some(batch)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_cancelled_as_their_last_rows_end_have_one_line_for_each_row() {
    let stage = Stage::postgres(&["--latency", "10ms"]).await;
    let replicas = pair(&stage).await;
    let (client, other) = (replicas[0].client(), replicas[1].client());
    let mut random = StdRng::seed_from_u64(setting("CHAOS_SEED", 1));
    let input = rows(ROWS);
    let file = client.upload(input.clone()).await;

    let mut batches = Vec::new();
    let races = setting("CHAOS_RACES", 25);
    for race in 0..races {
        let id = client.create_batch(&file).await;
        // Any number of rows in between; the first is called off before it begins, the last after its end.
        let rows = match race {
            0 => 0,
            race if race == races - 1 => ROWS as u64 + 1,
            _ => random.random_range(0..=ROWS as u64),
        };
        client.wait_for_completed(&id, rows).await;
        other.cancel(&id).await;
        batches.push(wait_for_end(&client, &id).await);
    }

    let ends: BTreeSet<&str> = batches.iter().map(|batch| text(&batch["status"])).collect();
    assert_eq!(ends, BTreeSet::from(["cancelled", "completed"]));
    // One that was called off before validation has no rows.
    batches.retain(|batch| batch["request_counts"]["total"] != 0);
    stage.prove_all(&client, &input, &batches, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_that_close_as_the_last_rows_end_leave_one_line_for_each_row() {
    // Eight at a time: 40 rows take a second.
    let stage = Stage::postgres(&["--latency", "lognormal:170ms:0.4"]).await;
    let replicas = pair(&stage).await;
    let client = replicas[0].client();
    let input = rows(ROWS);
    let file = client.upload(input.clone()).await;

    let mut batches = Vec::new();
    for _ in 0..setting("CHAOS_WINDOWS", 6) {
        let id = client.create_batch_within(&file, "1s").await;
        batches.push(wait_for_end(&client, &id).await);
    }

    stage.prove_all(&client, &input, &batches, Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_thousand_calls_in_flight_is_cancelled_at_once() {
    let stage = Stage::postgres(&["--latency", "60s"]).await;
    let api = stage.serve(&["--role", "api"]).await;
    // A model that has not answered leaves an eighth of the calls to others.
    let worker = stage.serve(&["--role", "worker", "--max-concurrency", "1142", "--concurrency", "fixed"]).await;
    let client = api.client();
    let input = rows(1_500);
    let id = client.submit(input.clone()).await;
    let in_flight = async |count: u64| {
        let seen = async || (stage.upstream().await["in_flight"] == count).then_some(());
        eventually(&format!("{count} calls to be in flight"), seen).await;
    };

    in_flight(1_000).await;
    assert_eq!(client.cancel(&id).await.ok()["status"], "cancelling");
    in_flight(0).await;
    let batch = client.wait_for(&id, "cancelled").await;

    assert_eq!(client.results(&batch).await.errors.len(), 1_500);
    stage.prove(&client, &input, &batch, vec![worker]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_created_by_many_with_one_key_is_one_batch() {
    let stage = Stage::postgres(&["--latency", "1ms"]).await;
    let replicas = pair(&stage).await;
    let clients = [replicas[0].client(), replicas[1].client()];
    let input = rows(ROWS);
    let file = clients[0].upload(input.clone()).await;

    let create = |client: &Client| {
        let new = new_batch(&file, "24h");
        send(client.request(Method::POST, "/v1/batches").header("Idempotency-Key", "the same").json(&new))
    };
    let answers = join_all((0..32).map(|turn| create(&clients[turn % 2]))).await;

    let ids: BTreeSet<String> = answers.iter().map(|answer| text(&answer.ok()["id"]).to_owned()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let batch = wait_for_end(&clients[1], ids.first().expect("one")).await;
    assert_eq!(clients[0].get("/v1/batches").await.ok()["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(stage.sent().await, (ROWS as u64, 0));
    stage.prove(&clients[1], &input, &batch, Vec::new()).await;
}

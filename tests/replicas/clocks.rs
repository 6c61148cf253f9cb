//! Workers whose clocks do not agree.

use std::time::Duration;

use batchwright::domain::time::Clock;

use crate::common::builders::rows;
use crate::stage::{Stage, number};

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn workers_five_minutes_apart_take_nothing_from_each_other() {
    let stage = Stage::postgres(&["--latency", "30ms"]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let fast = stage.daemon(Clock::Ahead(150_000), NEVER).await;
    let slow = stage.daemon(Clock::Ahead(-150_000), NEVER).await;
    let client = api.client();
    // Longer than a lease: by the other's clock each of them is long dead.
    let input = rows(4_000);

    let first = client.submit(input.clone()).await;
    let first = client.wait_for(&first, "completed").await;
    let second = client.submit(input.clone()).await;
    let second = client.wait_for(&second, "completed").await;
    fast.stop(Duration::from_secs(5)).await;
    slow.stop(Duration::from_secs(5)).await;

    assert_eq!(stage.sent().await, (8_000, 0), "no row is run by both");
    assert_eq!(number(&first["request_counts"]["completed"]), 4_000);
    stage.prove_all(&client, &input, &[first, second], Vec::new()).await;
}

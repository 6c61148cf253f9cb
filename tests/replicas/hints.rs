//! What happens on one replica is known on the others within a second.

use std::time::Duration;

use crate::common::builders::rows;
use crate::common::eventually::within;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_made_on_one_replica_starts_on_another_within_a_second_and_so_stops_a_cancelled_one() {
    let stage = Stage::postgres(&["--latency", "60s"]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let worker = stage.serve(&["--role", "worker"]).await;
    let other = stage.serve(&["--role", "worker"]).await;
    let client = api.client();
    let input = rows(2_000);
    let file = client.upload(input.clone()).await;
    let in_flight = async |what: &str, holds: fn(u64) -> bool| {
        let seen = async || holds(stage.upstream().await["in_flight"].as_u64().expect("a count")).then_some(());
        within(Duration::from_secs(1), what, seen).await;
    };

    let id = client.create_batch(&file).await;
    in_flight("the first rows to be sent", |count| count > 0).await;
    // Both workers have some of it.
    in_flight("all that may run to run", |count| count == 512).await;
    client.cancel(&id).await.ok();
    in_flight("every call to be aborted", |count| count == 0).await;
    let batch = client.wait_for(&id, "cancelled").await;

    stage.prove(&client, &input, &batch, vec![worker, other]).await;
}

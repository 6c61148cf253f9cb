//! What happens on one replica is known on the others within a second.

use std::time::{Duration, Instant};

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::stage::{Stage, number};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_made_on_one_replica_starts_on_another_within_a_second_and_a_cancel_reaches_it_as_fast() {
    let stage = Stage::postgres(&["--latency", "60s"]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let workers = vec![
        stage.serve(&["--role", "worker", "--concurrency", "fixed"]).await,
        stage.serve(&["--role", "worker", "--concurrency", "fixed"]).await,
    ];
    let client = api.client();
    // More than one worker takes while its calls hang.
    let input = rows(8_000);
    let file = client.upload(input.clone()).await;
    let in_flight = async |what: &str, holds: fn(u64) -> bool| {
        let since = Instant::now();
        eventually(what, async || holds(number(&stage.upstream().await["in_flight"])).then_some(())).await;
        since.elapsed()
    };

    // On a machine that is busy with other things one may be late.
    let (mut batches, mut starts, mut stops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let id = client.create_batch(&file).await;
        starts.push(in_flight("the first rows to be sent", |count| count > 0).await);
        // A model that has not answered leaves an eighth of the 256 calls of each.
        in_flight("both workers to run all they may", |count| count == 448).await;
        client.cancel(&id).await.ok();
        stops.push(in_flight("every call to be aborted", |count| count == 0).await);
        batches.push(client.wait_for(&id, "cancelled").await);
    }

    println!("starts {starts:?}, stops {stops:?}");
    let second = Duration::from_secs(1);
    assert!(starts.iter().min() < Some(&second) && stops.iter().min() < Some(&second), "{starts:?} {stops:?}");
    stage.prove_all(&client, &input, &batches, workers).await;
}

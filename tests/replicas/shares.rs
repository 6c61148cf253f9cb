//! A limit for all workers together follows those that live.

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::common::process::Process;
use crate::stage::{Stage, number};

#[tokio::test(flavor = "multi_thread")]
async fn living_workers_share_the_limit_and_a_leavers_share_goes_to_the_others() {
    let stage = Stage::postgres(&["--latency", "1s"]).await;
    let flags = ["--global-max-concurrency", "31", "--max-concurrency", "100", "--lease", "2s"];
    let first = stage.serve(&flags).await;
    let client = first.client();
    let in_flight = async || number(&stage.upstream().await["in_flight"]);
    let all_in_flight = async |what: &str| {
        eventually(what, async || (in_flight().await == 31).then_some(())).await;
    };
    // More than run before it is called off.
    let input = rows(5_000);
    let id = client.submit(input.clone()).await;

    all_in_flight("one worker to use all of it").await;
    let second = stage.serve(&flags).await;
    let mut third = stage.serve(&flags).await;
    // The newcomers wait until the first knows of them, so the sum is never above the limit.
    eventually("three workers to have their share", async || {
        let shares = [&first, &second, &third].map(Process::client);
        let mut running = Vec::new();
        for worker in shares {
            let metrics = worker.get("/metrics").await.text();
            let limit = metrics.lines().find_map(|line| line.strip_prefix("batchwright_concurrency_limit "));
            running.push(limit.and_then(|limit| limit.parse::<u64>().ok()).unwrap_or(0));
        }
        running.sort_unstable();
        (running == [10, 10, 11]).then_some(())
    })
    .await;
    all_in_flight("three workers to use all of it").await;
    third.terminate().await;
    all_in_flight("two workers to use all of it").await;
    client.cancel(&id).await.ok();
    let batch = client.wait_for(&id, "cancelled").await;

    assert_eq!(number(&stage.upstream().await["peak_in_flight"]), 31);
    stage.prove(&client, &input, &batch, vec![second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_share_leaves_the_rows_to_those_that_have_one() {
    let stage = Stage::postgres(&["--latency", "20ms"]).await;
    let flags = ["--global-max-concurrency", "1", "--lease", "2s"];
    let workers = vec![stage.serve(&flags).await, stage.serve(&flags).await];
    let api = stage.serve(&["--role", "api"]).await;
    let client = api.client();
    let input = rows(50);

    let id = client.submit(input.clone()).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(number(&stage.upstream().await["peak_in_flight"]), 1);
    stage.prove(&client, &input, &batch, workers).await;
}

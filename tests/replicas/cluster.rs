//! Three workers and two API replicas on one PostgreSQL and one S3 store: killed, frozen and added while they work.

use std::time::Duration;

use crate::common::builders::rows;
use crate::common::process::Process;
use crate::stage::{Stage, number, setting};

const CONCURRENCY: u64 = 16;
const LEASE: Duration = Duration::from_secs(2);

async fn worker(stage: &Stage) -> Process {
    let concurrency = CONCURRENCY.to_string();
    stage.serve(&["--role", "worker", "--lease", "2s", "--max-concurrency", &concurrency]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_killed_frozen_and_added_and_every_row_has_its_line_once() {
    let rounds = setting("CHAOS_ROUNDS", 1);
    // As many as a batch may have in ten rounds.
    let row_count = 5_000 * rounds;
    let stage = Stage::postgres_and_s3(&["--latency", "lognormal:50ms:0.5"]).await;
    let apis = [stage.serve(&["--role", "api"]).await, stage.serve(&["--role", "api"]).await];
    let mut workers = vec![worker(&stage).await, worker(&stage).await, worker(&stage).await];
    let [first, second] = [apis[0].client(), apis[1].client()];
    let input = rows(usize::try_from(row_count).expect("few"));
    let id = first.submit(input.clone()).await;

    for round in 0..rounds {
        second.wait_for_completed(&id, round * row_count / rounds + 500).await;
        workers.remove(0).kill();
        let frozen = workers.remove(0);
        frozen.signal("STOP");
        workers.push(worker(&stage).await);
        // Longer than its lease: the others take over what it had, and are well under way with it.
        tokio::time::sleep(LEASE * 2).await;
        assert_eq!(second.batch(&id).await["status"], "in_progress", "the batch was over too soon");
        frozen.signal("CONT");
        workers.push(frozen);
    }
    let batch = second.wait_for(&id, "completed").await;

    let (sent, repeats) = stage.sent().await;
    println!("{rounds} rounds: {repeats} of {sent} rows were sent again");
    assert_eq!(sent, row_count);
    // Of each killed or frozen worker: what was in flight, and what it had finished in the second before.
    let a_second = CONCURRENCY * 1000 / 40;
    assert!(repeats <= 2 * rounds * (CONCURRENCY + a_second), "{repeats} rows were sent again");
    assert_eq!(number(&batch["request_counts"]["completed"]), row_count);
    stage.prove(&second, &input, &batch, workers).await;
}

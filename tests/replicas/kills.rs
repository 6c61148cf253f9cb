//! `kill -9` at random moments, again and again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::common::builders::rows;
use crate::stage::{Stage, setting};

const CONCURRENCY: u64 = 32;
/// A process lives for up to so long, counted from when it listens.
const LONGEST_LIFE: u64 = 600;

/// How long each call takes, so that the batch lasts as long as the kills.
fn latency(kills: u64, rows: u64) -> String {
    format!("{}ms", CONCURRENCY * kills * LONGEST_LIFE / rows / 2 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_no_kill_loses_or_doubles_a_row() {
    let (kills, rows) = (setting("CHAOS_KILLS", 5), setting("CHAOS_ROWS", 3_000));
    kill_again_and_again(Stage::sqlite(&["--latency", &latency(kills, rows)]).await, kills, rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_no_kill_loses_or_doubles_a_row() {
    let (kills, rows) = (setting("CHAOS_KILLS", 5), setting("CHAOS_ROWS", 3_000));
    kill_again_and_again(Stage::postgres(&["--latency", &latency(kills, rows)]).await, kills, rows).await;
}

async fn kill_again_and_again(stage: Stage, kills: u64, row_count: u64) {
    let seed = setting("CHAOS_SEED", 1);
    let mut random = StdRng::seed_from_u64(seed);
    let input = rows(usize::try_from(row_count).expect("few"));
    // Two seconds, so that on PostgreSQL the next process does not wait for long.
    let flags = ["--max-concurrency", &CONCURRENCY.to_string(), "--lease", "2s"];
    let mut server = stage.serve(&flags).await;
    let address = server.base_url.trim_start_matches("http://").to_owned();
    let client = server.client();
    let id = client.submit(input.clone()).await;

    let (mut killed, mut unrecorded) = (0, 0);
    while killed < kills && client.batch(&id).await["status"] != "completed" {
        // The moment is the point: anything may be under way.
        tokio::time::sleep(Duration::from_millis(random.random_range(1..LONGEST_LIFE))).await;
        server.kill();
        killed += 1;
        let (sent, _) = stage.sent().await;
        unrecorded += sent - stage.recorded().await;
        server = stage.serve_at(&address, &flags).await;
    }
    let batch = client.wait_for(&id, "completed").await;

    let (sent, repeats) = stage.sent().await;
    println!("seed {seed}: {killed} kills; {unrecorded} rows were unrecorded at one, {repeats} were sent again");
    assert_eq!(killed, kills, "the batch was over too soon");
    assert_eq!(batch["request_counts"]["completed"], row_count, "no row is blamed for the kills");
    assert_eq!(sent, row_count, "each row has one idempotency key, however often it is sent");
    assert!(repeats <= unrecorded, "{repeats} rows were sent again, {unrecorded} were unrecorded");
    stage.prove(&client, &input, &batch, vec![server]).await;
}

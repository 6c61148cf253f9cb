//! `kill -9` in the middle of a batch, and SIGTERM.

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::stage::Stage;
use crate::whole_batches::{number, stats};

const ROWS: usize = 5_000;

#[tokio::test]
async fn a_killed_server_goes_on_where_it_was() {
    let stage = Stage::new(&["--latency", "40ms"]).await;
    let flags = ["--max-concurrency", "64"];
    let mut server = stage.serve(&flags).await;
    let client = server.client();
    let input = rows(ROWS);

    let id = client.submit(input.clone()).await;
    let seen = client.wait_for_completed(&id, 1_000).await;
    server.kill();

    let recorded = number(&seen["request_counts"]["completed"]);
    let sent = eventually("the simulator to be done", async || {
        let stats = stats(&stage.simulator).await;
        (stats["in_flight"] == 0).then(|| number(&stats["requests"]))
    })
    .await;
    assert_eq!(seen["status"], "in_progress");
    let address = server.base_url.trim_start_matches("http://").to_owned();
    let _restarted = stage.serve_at(&address, &flags).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(number(&batch["request_counts"]["completed"]), ROWS as u64);
    let verdict = client.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    let stats = stats(&stage.simulator).await;
    let repeats = number(&stats["repeats"]);
    println!("{sent} rows were sent and {recorded} seen recorded before the kill; {repeats} were sent again");
    assert!(repeats <= sent - recorded, "{repeats} rows were sent again, {} were unrecorded", sent - recorded);
    assert_eq!(number(&stats["requests"]), ROWS as u64 + repeats);
}

#[tokio::test]
async fn a_killed_server_keeps_what_it_acknowledged() {
    let stage = Stage::new(&[]).await;
    let mut server = stage.serve(&[]).await;

    let file_id = server.client().upload(rows(10)).await;
    let id = server.client().create_batch(&file_id).await;
    server.kill();
    let restarted = stage.serve(&[]).await;

    let client = restarted.client();
    assert_eq!(client.content(&file_id).await.text(), rows(10));
    let batch = client.wait_for(&id, "completed").await;
    assert!(client.verify(&rows(10), &batch).await.holds());
}

#[tokio::test]
async fn sigterm_ends_the_server_with_success() {
    let stage = Stage::new(&["--latency", "50ms"]).await;
    let mut server = stage.serve(&[]).await;
    server.client().submit(rows(2_000)).await;

    let status = server.terminate().await;

    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(server.log().contains("daemon stopped"), "{}", server.log());
}

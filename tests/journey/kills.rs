//! `kill -9` in the middle of a batch, and SIGTERM.

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::common::process::Process;
use crate::whole_batches::{number, stats};

const ROWS: usize = 5_000;

#[tokio::test]
async fn a_killed_server_goes_on_where_it_was() {
    let simulator = Process::simulate(&["--latency", "40ms"]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().display().to_string();
    let upstream = format!("{}/v1", simulator.base_url);
    let flags = ["--upstream", &upstream, "--data-dir", &data, "--max-concurrency", "64"];
    let mut server = Process::serve(&flags).await;
    let client = server.client();
    let input = rows(ROWS);

    let id = client.submit(input.clone()).await;
    let seen = client.wait_for_completed(&id, 1_000).await;
    server.kill();

    let recorded = number(&seen["request_counts"]["completed"]);
    let sent = eventually("the simulator to be done", async || {
        let stats = stats(&simulator).await;
        (stats["in_flight"] == 0).then(|| number(&stats["requests"]))
    })
    .await;
    assert_eq!(seen["status"], "in_progress");
    let address = server.base_url.trim_start_matches("http://").to_owned();
    let _restarted = Process::serve_at(&address, &flags).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(number(&batch["request_counts"]["completed"]), ROWS as u64);
    let verdict = client.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    let stats = stats(&simulator).await;
    let repeats = number(&stats["repeats"]);
    println!("{sent} rows were sent and {recorded} seen recorded before the kill; {repeats} were sent again");
    assert!(repeats <= sent - recorded, "{repeats} rows were sent again, {} were unrecorded", sent - recorded);
    assert_eq!(number(&stats["requests"]), ROWS as u64 + repeats);
}

#[tokio::test]
async fn a_killed_server_keeps_what_it_acknowledged() {
    let simulator = Process::simulate(&[]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().display().to_string();
    let upstream = format!("{}/v1", simulator.base_url);
    let flags = ["--upstream", &upstream, "--data-dir", &data];
    let mut server = Process::serve(&flags).await;

    let file_id = server.client().upload(rows(10)).await;
    let id = server.client().create_batch(&file_id).await;
    server.kill();
    let restarted = Process::serve(&flags).await;

    let client = restarted.client();
    assert_eq!(client.content(&file_id).await.text(), rows(10));
    let batch = client.wait_for(&id, "completed").await;
    assert!(client.verify(&rows(10), &batch).await.holds());
}

#[tokio::test]
async fn sigterm_ends_the_server_with_success() {
    let simulator = Process::simulate(&["--latency", "50ms"]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().display().to_string();
    let upstream = format!("{}/v1", simulator.base_url);
    let mut server = Process::serve(&["--upstream", &upstream, "--data-dir", &data]).await;
    server.client().submit(rows(2_000)).await;

    let status = server.terminate().await;

    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(server.log().contains("daemon stopped"), "{}", server.log());
}

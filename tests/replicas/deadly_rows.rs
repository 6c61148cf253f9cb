//! Rows that take their worker down.

use crate::common::builders::{file, line};
use crate::common::eventually::eventually;
use crate::common::process::Process;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_row_that_kills_its_worker_is_failed_in_the_end() {
    fail_the_deadly_row(Stage::sqlite(&["--latency", "0ms"]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_row_that_kills_its_worker_is_failed_in_the_end() {
    fail_the_deadly_row(Stage::postgres(&["--latency", "0ms"]).await).await;
}

/// The upstream answers at once, so that the row's turn comes before anything is recorded, on a busy machine too.
async fn fail_the_deadly_row(stage: Stage) {
    let start = async || {
        let mut command = stage.command_at("127.0.0.1:0", &["--lease", "2s", "--max-concurrency", "8"]);
        command.env("FAILPOINTS", "attempt.begun=return(deadly)");
        Process::start(command).await
    };
    let input = file((0..60).map(|row| line(&if row == 20 { "deadly".to_owned() } else { format!("row-{row}") })));
    let mut server = start().await;
    let id = server.client().submit(input.clone()).await;

    let mut deaths = 0;
    let batch = eventually("the batch to be completed", async || {
        if !server.is_running() {
            deaths += 1;
            server = start().await;
        }
        let request = server.client().request(reqwest::Method::GET, &format!("/v1/batches/{id}"));
        let batch: serde_json::Value = request.send().await.ok()?.json().await.ok()?;
        (batch["status"] == "completed").then_some(batch)
    })
    .await;

    let client = server.client();
    let results = client.results(&batch).await;
    assert_eq!(results.error_codes(), ["worker_died"]);
    assert_eq!(results.errors[0]["custom_id"], "deadly");
    assert_eq!(results.output.len(), 59, "it takes nobody with it");
    // Three with others beside it, three alone; more if a death came between a row and its record.
    assert!((6..=8).contains(&deaths), "{deaths} deaths");
    stage.prove(&client, &input, &batch, vec![server]).await;
}

//! The database or the blob store is away, or has lost what a row needs: the row waits without losing attempts, or
//! fails and says whose fault it is.

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use crate::common::client::Client;
use crate::common::eventually::{eventually, until};
use crate::common::process::Process;
use crate::stage::{Stage, call, last_text, scripted, submit};

/// A server that fails at these points.
async fn serve(stage: &Stage, points: &str) -> Process {
    let mut command = stage.command();
    command.env("FAILPOINTS", points);
    Process::start(command).await
}

/// Model, tool, model. The server dies when the model's first call and the tool's have ended.
async fn begun(stage: &Stage, script: Value) -> String {
    let mut server = serve(stage, "step.kept=1*off->1*return(crash)").await;
    let id = submit(&server.client(), &[("row", scripted(script, &["add"]))], json!({})).await;
    until("the server to die", || !server.is_running()).await;
    id
}

fn adding() -> Value {
    json!({ "turns": [[call("add", json!({ "a": 1, "b": 2 }))]] })
}

/// Attempts that did not count, as the metrics have it.
async fn parked(client: &Client) -> u64 {
    let metrics = client.get("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("batchwright_attempts_total{ended=\"parked\"} "));
    line.map_or(0, |count| count.parse().expect("a count"))
}

async fn parked_rows(client: &Client) -> Option<String> {
    let metrics = client.get("/metrics").await.text();
    let mut lines = metrics.lines();
    let name = "batchwright_parked_rows{reason=\"storage_unavailable\"} ";
    lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

#[tokio::test]
async fn a_row_whose_steps_cannot_be_read_for_a_while_loses_no_attempt() {
    // Of two attempts the upstream costs one.
    let stage = Stage::with_flags(&["--max-retries", "1"]).await;
    let mut script = adding();
    script["fail_once"] = json!({ "1": 500 });
    let id = begun(&stage, script).await;

    let server = serve(&stage, "read.steps.of_row=3*return(error)->off").await;
    let client = server.client();
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(last_text(&client.results(&batch).await.output[0]["response"]["body"]), "3");
    let upstream = stage.upstream().await;
    assert_eq!((&upstream["requests"], &upstream["repeats"]), (&json!(3), &json!(1)), "{upstream}");
    assert_eq!(stage.tools.row_calls().len(), 1, "the tool that had answered is not called again");
    assert_eq!(parked(&client).await, 3);
    assert_eq!(parked_rows(&client).await.as_deref(), Some("0"));
    let log = server.log();
    let said = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((said("rows are parked"), said("no row is parked any more")), (1, 1), "{log}");
}

#[tokio::test]
async fn a_row_whose_previous_response_cannot_be_read_for_a_while_loses_no_attempt() {
    let stage = Stage::with_flags(&["--max-retries", "0"]).await;
    let first = stage.response(scripted(adding(), &["add"])).await;

    // The first two reads are those of the index and of the row.
    let server = serve(&stage, "blob.read=2*off->3*return(error)->off").await;
    let client = server.client();
    let mut body = scripted(adding(), &["add"]);
    body["previous_response_id"] = first["id"].clone();
    let id = submit(&client, &[("row", body)], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(last_text(&client.results(&batch).await.output[0]["response"]["body"]), "3 | 3");
    assert_eq!(parked(&client).await, 3);
}

#[tokio::test]
async fn a_row_that_is_parked_is_called_off_like_any_other() {
    let stage = Stage::new().await;
    let id = begun(&stage, adding()).await;
    let server = serve(&stage, "read.steps.of_row=return(error)").await;
    let client = server.client();
    eventually("the row to be parked", async || (parked(&client).await > 0).then_some(())).await;

    client.cancel(&id).await.ok();
    let batch = client.wait_for(&id, "cancelled").await;

    assert_eq!(client.results(&batch).await.error_codes(), ["batch_cancelled"]);
    assert_eq!(parked_rows(&client).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_row_whose_steps_are_damaged_fails_and_does_not_wait() {
    let stage = Stage::new().await;
    let id = begun(&stage, adding()).await;
    let options = SqliteConnectOptions::new().filename(stage.directory().join("data/batchwright.db"));
    let mut database = SqliteConnection::connect_with(&options).await.expect("the database is there");
    sqlx::query("UPDATE response_steps SET state = 'nowhere'").execute(&mut database).await.expect("a statement");
    database.close().await.expect("it is closed");

    let server = stage.serve().await;
    let client = server.client();
    let batch = client.wait_for(&id, "completed").await;

    let results = client.results(&batch).await;
    assert_eq!(results.error_codes(), ["storage_error"]);
    let message = results.errors[0]["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("The row's steps cannot be read: response_steps.step of "), "{message}");
    assert_eq!(parked(&client).await, 0);
}

#[tokio::test]
async fn a_row_whose_previous_response_is_lost_fails_and_does_not_wait() {
    let stage = Stage::new().await;
    let server = stage.serve().await;
    let client = server.client();
    let id = submit(&client, &[("row", scripted(adding(), &["add"]))], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;
    let first = client.results(&batch).await.output[0]["response"]["body"]["id"].clone();
    let (output, _) = stage.blob_with(first.as_str().expect("an id"));
    std::fs::remove_file(output).expect("it is there");

    let body = json!({ "model": "m", "input": "Hi", "previous_response_id": first });
    let id = submit(&client, &[("row", body)], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(client.results(&batch).await.error_codes(), ["storage_error"]);
    assert_eq!(parked(&client).await, 0);
}

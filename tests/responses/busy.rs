//! An upstream is not kept waiting by rows that wait for their tools.

use serde_json::{Value, json};

use crate::common::client::Client;
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::Reply;
use crate::stage::{Stage, call, last_text, scripted, submit};

fn rows(count: usize, body: &Value) -> Vec<(String, Value)> {
    (0..count).map(|no| (format!("row-{no}"), body.clone())).collect()
}

fn borrowed(rows: &[(String, Value)]) -> Vec<(&str, Value)> {
    rows.iter().map(|(id, body)| (id.as_str(), body.clone())).collect()
}

/// Rows that all wait for a tool, which does not answer: their batch. The tool says 3 once it is released.
async fn waiting_rows(stage: &Stage, client: &Client, count: usize) -> String {
    stage.tools.reply(|_| Reply::new(200, "3").held());
    let waiting = rows(count, &scripted(json!({ "turns": [[call("add", json!({ "a": 1, "b": 2 }))]] }), &["add"]));
    let id = submit(client, &borrowed(&waiting), json!({})).await;
    until("all rows to wait for the tool", || stage.tools.running() == count).await;
    id
}

/// Runs twenty rows without tools.
async fn run_plain_rows(client: &Client) {
    let plain = rows(20, &json!({ "model": "m", "input": "Hi" }));
    let id = submit(client, &borrowed(&plain), json!({})).await;
    client.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn rows_that_wait_for_tools_lend_their_calls_to_others() {
    let stage = Stage::with_flags(&["--max-concurrency", "2"]).await;
    let server = stage.serve().await;
    let client = server.client();

    // Two calls at once, and six rows that wait for their tool.
    let id = waiting_rows(&stage, &client, 6).await;
    run_plain_rows(&client).await;

    stage.tools.release();
    let batch = client.wait_for(&id, "completed").await;
    for line in client.results(&batch).await.output {
        assert_eq!(last_text(&line["response"]["body"]), "3");
    }
    let upstream = stage.upstream().await;
    assert_eq!((&upstream["requests"], &upstream["repeats"]), (&json!(32), &json!(0)), "{upstream}");
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_may_be() {
    let stage = Stage::with(&["--latency", "20ms"], "", &["--max-concurrency", "3"]).await;
    let server = stage.serve().await;
    let client = server.client();
    let turns: Vec<Value> = (0..3).map(|n| json!([call("add", json!({ "a": n, "b": n }))])).collect();
    let many = rows(40, &scripted(json!({ "turns": turns }), &["add"]));

    let id = submit(&client, &borrowed(&many), json!({})).await;
    client.wait_for(&id, "completed").await;

    let upstream = stage.upstream().await;
    assert_eq!((&upstream["requests"], &upstream["peak_in_flight"]), (&json!(160), &json!(3)), "{upstream}");
}

#[tokio::test]
async fn a_row_that_is_called_off_while_it_waits_leaves_its_call_behind() {
    let stage = Stage::with_flags(&["--max-concurrency", "1"]).await;
    let server = stage.serve().await;
    let client = server.client();
    let id = waiting_rows(&stage, &client, 3).await;

    client.cancel(&id).await.ok();
    client.wait_for(&id, "cancelled").await;
    eventually("the calls of the tool to be aborted", async || (stage.tools.aborted() == 3).then_some(())).await;

    run_plain_rows(&client).await;
    assert_eq!(stage.upstream().await["peak_in_flight"], 1);
}

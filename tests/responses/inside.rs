//! Looking at rows, steps and responses, and going on from a response in a later batch.

use serde_json::{Value, json};

use crate::common::client::{Client, error};
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::Reply;
use crate::everything::Everything;
use crate::stage::{Stage, call, items, last_text, scripted, submit, types};

async fn steps(client: &Client, batch: &str, custom_id: &str) -> Vec<Value> {
    let list = client.get(&format!("/v1/batches/{batch}/requests/{custom_id}/steps")).await.ok();
    assert_eq!(list["object"], "list");
    list["data"].as_array().expect("a list").clone()
}

async fn respond(client: &Client, body: Value) -> Value {
    let id = submit(client, &[("row", body)], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;
    let results = client.results(&batch).await;
    assert!(results.errors.is_empty(), "{:?}", results.errors);
    results.output[0]["response"]["body"].clone()
}

/// The members of steps that say what they are.
fn told(steps: &[Value]) -> Vec<Value> {
    steps.iter().map(|step| json!([step["path"], step["parent"], step["type"], step["state"]])).collect()
}

#[tokio::test]
async fn the_steps_of_a_row_can_be_watched_and_looked_at_afterwards() {
    let stage = Stage::new().await;
    stage.tools.reply(|_| Reply::new(200, "7").held());
    let server = stage.serve().await;
    let client = server.client();
    let body = scripted(json!({ "turns": [[call("add", json!({ "a": 3, "b": 4 }))]] }), &["add"]);
    let id = submit(&client, &[("a row", body)], json!({})).await;
    until("the tool to be called", || stage.tools.running() == 1).await;

    let running = eventually("both steps", async || {
        let steps = steps(&client, &id, "a%20row").await;
        (steps.len() == 2).then_some(steps)
    })
    .await;
    assert_eq!(
        told(&running),
        [json!(["0", null, "model_call", "completed"]), json!(["0.0", "0", "tool_call", "in_progress"])]
    );
    assert_eq!((&running[1]["name"], &running[1]["result"]), (&json!("add"), &Value::Null));
    let request = client.get(&format!("/v1/batches/{id}/requests/a%20row")).await.ok();
    assert_eq!((&request["state"], &request["attempts"]), (&json!("in_progress"), &json!(2)));

    stage.tools.release();
    client.wait_for(&id, "completed").await;

    let ended = steps(&client, &id, "a%20row").await;
    assert_eq!(
        told(&ended),
        [
            json!(["0", null, "model_call", "completed"]),
            json!(["0.0", "0", "tool_call", "completed"]),
            json!(["1", null, "model_call", "completed"]),
        ]
    );
    assert_eq!(ended[0]["result"]["output"][0]["call_id"], ended[1]["call_id"]);
    assert_eq!(ended[1]["result"], json!({ "output": "7", "is_error": false }));
    assert!(ended[2]["result"]["usage"]["total_tokens"].is_u64() && ended[2]["duration_ms"].is_u64(), "{}", ended[2]);
    let unknown = client.get(&format!("/v1/batches/{id}/requests/nobody/steps")).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn rows_of_one_call_have_no_steps() {
    let stage = Stage::new().await;
    let server = stage.serve().await;
    let client = server.client();
    let id = submit(&client, &[("row", json!({ "model": "m", "input": "Hi" }))], json!({})).await;
    client.wait_for(&id, "completed").await;

    assert!(steps(&client, &id, "row").await.is_empty());
}

#[tokio::test]
async fn a_response_can_be_fetched_by_its_id() {
    let stage = Stage::new().await;
    let server = stage.serve().await;
    let client = server.client();
    let made = respond(&client, scripted(json!({ "answer": "Hi" }), &["add"])).await;

    let id = made["id"].as_str().expect("an id");
    assert_eq!(client.get(&format!("/v1/responses/{id}")).await.ok(), made);
    let other = format!("{}ffffffff", &id[..id.len() - 8]);
    let unknown = client.get(&format!("/v1/responses/{other}")).await;
    assert_eq!(unknown.json(), error(&format!("Response with id '{other}' not found."), None, None));
}

#[tokio::test]
async fn a_later_row_goes_on_from_a_response_and_another_from_that() {
    for dialect in ["native", "chat"] {
        let stage = Stage::with_flags(&["--upstream-responses", dialect]).await;
        let server = stage.serve().await;
        let client = server.client();
        let add = |a: i32, b: i32| json!({ "turns": [[call("add", json!({ "a": a, "b": b }))]] });
        let first = respond(&client, scripted(add(1, 2), &["add"])).await;
        let on = |previous: &Value, mut body: Value| {
            body["previous_response_id"] = previous["id"].clone();
            body
        };

        let second = respond(&client, on(&first, scripted(add(10, 20), &["add"]))).await;
        let third = respond(&client, on(&second, scripted(add(100, 200), &["add"]))).await;

        // The upstream says what all tools of the conversation said: it was told of all of them.
        assert_eq!(last_text(&first), "3");
        assert_eq!(last_text(&second), "3 | 30");
        assert_eq!(last_text(&third), "3 | 30 | 300");
        assert_eq!(third["previous_response_id"], second["id"]);
        assert_eq!(types(&third), ["function_call", "function_call_output", "message"], "its own output alone");
    }
}

#[tokio::test]
async fn tools_of_mcp_servers_are_part_of_what_is_gone_on_from() {
    let everything = Everything::start().await;
    for dialect in ["native", "chat"] {
        let settings = format!("[[mcp_servers]]\nlabel = 'every'\nurl = '{}'\n", everything.url());
        let stage = Stage::with(&["--latency", "0ms"], &settings, &["--upstream-responses", dialect]).await;
        let server = stage.serve().await;
        let client = server.client();
        let body = |message: &str| {
            let script = json!({ "turns": [[call("every__echo", json!({ "message": message }))]] });
            let mut body = scripted(script, &[]);
            body["tools"] = json!([{ "type": "mcp", "server_label": "every" }]);
            body
        };
        let first = respond(&client, body("one")).await;
        let mut second = body("two");
        second["previous_response_id"] = first["id"].clone();

        let second = respond(&client, second).await;

        assert_eq!(last_text(&second), "Echo: one | Echo: two");
        assert_eq!(items(&second)[0]["type"], "mcp_list_tools");
    }
}

#[tokio::test]
async fn a_previous_response_that_is_not_there_is_an_error_of_the_row() {
    let stage = Stage::with_flags(&["--upstream-responses", "chat"]).await;
    let unknown = format!("resp_{:040x}", 7);
    for id in [unknown.as_str(), "resp_of_somebody_else"] {
        let line = stage.error(json!({ "model": "m", "input": "Hi", "previous_response_id": id })).await;

        assert_eq!(line["error"]["code"], "unsupported");
        assert_eq!(stage.upstream().await["requests"], 0);
    }
}

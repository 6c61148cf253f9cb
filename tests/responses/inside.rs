//! Looking at rows, steps and responses, and going on from a response in a later batch.

use serde_json::{Value, json};

use crate::common::client::{Client, error};
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::Process;
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
    let batch = client.wait_for(&id, "completed").await;

    let ended = steps(&client, &id, "a%20row").await;
    assert_eq!(
        told(&ended),
        [
            json!(["0", null, "model_call", "completed"]),
            json!(["0.0", "0", "tool_call", "completed"]),
            json!(["1", null, "model_call", "completed"]),
        ]
    );
    let response = client.results(&batch).await.output[0]["response"]["body"].clone();
    let [asked, answered, _] = &items(&response)[..] else { panic!("{response}") };
    assert_eq!(ended[0]["result"]["output"][0], *asked);
    assert!(ended[1]["call_id"].as_str().is_some_and(|id| !id.is_empty()), "{}", ended[1]);
    assert_eq!([&asked["call_id"], &answered["call_id"]], [&ended[1]["call_id"]; 2]);
    assert_eq!(ended[1]["result"], json!({ "output": "7", "is_error": false }));
    assert!(ended[2]["result"]["usage"]["total_tokens"].is_u64() && ended[2]["duration_ms"].is_u64(), "{}", ended[2]);
    let unknown = client.get(&format!("/v1/batches/{id}/requests/nobody/steps")).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn steps_are_gone_once_they_have_been_kept_as_long_as_they_are_to_be() {
    let stage = Stage::new().await;
    let mut server = stage.serve().await;
    let body = scripted(json!({ "turns": [[call("add", json!({ "a": 3, "b": 4 }))]] }), &["add"]);
    let id = submit(&server.client(), &[("row", body)], json!({})).await;
    server.client().wait_for(&id, "completed").await;
    server.terminate().await;

    // What keeps the house does so when a server starts, and then only now and then.
    let mut server = stage.serve().await;
    assert_eq!(steps(&server.client(), &id, "row").await.len(), 3);
    server.terminate().await;
    let mut command = stage.command();
    command.args(["--steps-retention", "1ms"]);
    let server = Process::start(command).await;

    let client = server.client();
    eventually("the steps to be gone", async || steps(&client, &id, "row").await.is_empty().then_some(())).await;
    let batch = client.get(&format!("/v1/batches/{id}")).await.ok();
    assert_eq!(last_text(&client.results(&batch).await.output[0]["response"]["body"]), "7");
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

/// An upstream that says `text` to everything, through either API.
fn saying(text: &'static str) -> FakeUpstream {
    let upstream = FakeUpstream::start();
    upstream.reply(move |call| {
        let answer = if call.path.ends_with("/responses") {
            let content = json!([{ "type": "output_text", "text": text, "annotations": [] }]);
            let message = json!({ "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                "content": content });
            json!({ "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
                "output": [message] })
        } else {
            let message = json!({ "role": "assistant", "content": text });
            json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }] })
        };
        Reply::new(200, answer.to_string())
    });
    upstream
}

#[tokio::test]
async fn instructions_are_not_carried_over_to_who_goes_on_and_what_was_said_is() {
    for dialect in ["native", "chat"] {
        let upstream = saying("Pear.");
        let stage = Stage::at(&upstream, &["--upstream-responses", dialect]).await;
        let server = stage.serve().await;
        let client = server.client();
        let tools = json!([{ "type": "function", "name": "add" }]);
        let first = json!({ "model": "m", "input": "Apple?", "instructions": "Be a tree.", "tools": tools });
        let first = respond(&client, first).await;
        let second = |instructions: Value| {
            json!({ "model": "m", "input": "Plum?", "instructions": instructions, "tools": tools,
                "previous_response_id": first["id"] })
        };

        let bare = respond(&client, second(Value::Null)).await;
        respond(&client, second(json!("Be a bush."))).await;

        let asked: Vec<Value> =
            upstream.row_calls().iter().map(|call| serde_json::from_str(call.text()).expect("JSON")).collect();
        let told: Vec<Vec<[&str; 2]>> = asked.iter().map(told_to_model).collect();
        let said = [["user", "Apple?"], ["assistant", "Pear."], ["user", "Plum?"]];
        assert_eq!(told[0], [["system", "Be a tree."], said[0]], "{}", asked[0]);
        assert_eq!(told[1], said, "{}", asked[1]);
        assert_eq!(told[2], [&[["system", "Be a bush."]], &said[..]].concat(), "{}", asked[2]);
        assert!(asked[1..].iter().all(|asked| asked.get("previous_response_id").is_none()), "{asked:?}");
        assert_eq!(bare["instructions"], Value::Null);
    }
}

/// Who said what in a request, through either API. Instructions are what the system says.
fn told_to_model(request: &Value) -> Vec<[&str; 2]> {
    let instructions = request["instructions"].as_str().map(|text| ["system", text]);
    let input = request["input"].as_str().map(|text| ["user", text]);
    let items = ["input", "messages"].into_iter().filter_map(|name| request[name].as_array()).flatten().map(said_by);
    instructions.into_iter().chain(input).chain(items).collect()
}

fn said_by(item: &Value) -> [&str; 2] {
    let text = item["content"].as_str().or(item["content"][0]["text"].as_str());
    [item["role"].as_str().expect("somebody said it"), text.expect("it is a text")]
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
async fn what_a_row_goes_on_from_is_bounded_in_bytes() {
    let upstream = saying("Pear.");
    let stage = Stage::at(&upstream, &["--upstream-responses", "chat"]).await;
    let server = stage.serve().await;
    let client = server.client();
    let asking = |previous: Option<&Value>| {
        let mut body = json!({ "model": "m", "input": "x".repeat(9 << 20) });
        if let Some(previous) = previous {
            body["previous_response_id"] = previous["id"].clone();
        }
        body
    };
    let first = respond(&client, asking(None)).await;
    let second = respond(&client, asking(Some(&first))).await;

    let id = submit(&client, &[("row", asking(Some(&second)))], json!({})).await;
    let results = client.results(&client.wait_for(&id, "completed").await).await;

    assert!(results.errors[0].to_string().contains("The conversation before this request is too long."));
}

/// Rows that each go on from the one before, in one batch whose ids nobody could know when it was uploaded: the file is
/// changed when it has run.
#[tokio::test]
async fn what_a_row_goes_on_from_is_a_hundred_responses_and_no_more() {
    const MOST: usize = 100;
    let upstream = saying("Pear.");
    let stage = Stage::at(&upstream, &["--upstream-responses", "chat"]).await;
    let server = stage.serve().await;
    let client = server.client();
    // As long as what takes its place.
    let placeholder = |no: usize| format!(r#""user":"{no:061}""#);
    let body = |no: usize| {
        serde_json::from_str(&format!(r#"{{"model":"m","input":"Plum?",{}}}"#, placeholder(no))).expect("JSON")
    };
    let names: Vec<String> = (0..=MOST).map(|no| format!("row-{no}")).collect();
    let rows: Vec<(&str, Value)> = names.iter().enumerate().map(|(no, name)| (name.as_str(), body(no))).collect();
    let batch = client.wait_for(&submit(&client, &rows, json!({})).await, "completed").await;
    let results = client.results(&batch).await;
    let id = |no: usize| {
        let line = results.output.iter().find(|line| line["custom_id"] == names[no]).expect("each row has an answer");
        line["response"]["body"]["id"].as_str().expect("an id")
    };
    let (file, mut text) = stage.blob_with(r#""url":"/v1/responses""#);
    for no in 1..=MOST {
        text = text.replace(&placeholder(no), &format!(r#""previous_response_id":"{}""#, id(no - 1)));
    }
    std::fs::write(file, text).expect("it can be written");
    let calls_before = upstream.row_calls().len();
    let going_on = |no: usize| json!({ "model": "m", "input": "Plum?", "previous_response_id": id(no) });

    let rows = [("accepted", going_on(MOST - 1)), ("refused", going_on(MOST))];
    let batch = client.wait_for(&submit(&client, &rows, json!({})).await, "completed").await;

    let results = client.results(&batch).await;
    assert_eq!((results.output.len(), results.errors.len()), (1, 1), "{:?}", results.errors);
    let error = json!({ "code": "unsupported", "message": "The conversation before this request is too long." });
    assert_eq!((&results.errors[0]["custom_id"], &results.errors[0]["error"]), (&json!("refused"), &error));
    let asked: Value = serde_json::from_str(upstream.row_calls()[calls_before].text()).expect("JSON");
    assert_eq!(told_to_model(&asked).len(), 2 * MOST + 1);
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

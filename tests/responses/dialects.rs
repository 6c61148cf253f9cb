//! Upstreams with and without `/v1/responses`.

use serde_json::json;

use crate::common::eventually::until;
use crate::common::fake_upstream::{Call, FakeUpstream, Reply};
use crate::common::process::Process;
use crate::stage::{Stage, submit, submit_to, types};

#[tokio::test]
async fn without_tools_a_native_upstream_gets_the_body_and_gives_the_answer_byte_for_byte() {
    let upstream = FakeUpstream::start();
    let answer =
        r#"{"id":"resp_up","b":1.10,"a":12345678901234567890,"object":"response","status":"completed","output":[]}"#;
    upstream.reply(move |_| Reply::new(200, answer));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().display().to_string();
    let server = Process::serve(&["--upstream", &format!("http://{}/v1", upstream.address), "--data-dir", &data]).await;
    let client = server.client();
    let body = r#"{"temperature":0.70,"model":"m","input":"Hi","seed":12345678901234567890}"#;
    let line = format!(r#"{{"custom_id":"a","method":"POST","url":"/v1/responses","body":{body}}}"#);
    let file = client.upload(line).await;
    let batch = json!({ "input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h" });
    let id = client.post("/v1/batches", &batch).await.ok()["id"].as_str().expect("an id").to_owned();

    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(upstream.row_calls().len(), 1);
    assert_eq!((upstream.row_calls()[0].path.as_str(), upstream.row_calls()[0].text()), ("/v1/responses", body));
    let output = client.content(batch["output_file_id"].as_str().expect("a file")).await.text();
    assert!(output.contains(&format!(r#""body":{answer}}}"#)), "{output}");
}

#[tokio::test]
async fn an_upstream_that_has_only_chat_completions_is_found_out_once() {
    let stage = Stage::with(&["--latency", "0ms", "--no-responses"], "", &["--max-concurrency", "1"]).await;
    let rows: Vec<_> = (0..20).map(|_| json!({ "model": "m", "input": "Hi", "instructions": "Be kind." })).collect();
    let ids: Vec<String> = (0..20).map(|no| format!("row-{no}")).collect();
    let rows: Vec<(&str, serde_json::Value)> = ids.iter().map(String::as_str).zip(rows).collect();

    let results = stage.results(&rows).await;

    assert_eq!(results.output.len(), 20, "{:?}", results.errors);
    let response = &results.output[0]["response"]["body"];
    assert_eq!(types(response), ["message"]);
    assert_eq!((&response["instructions"], &response["object"]), (&json!("Be kind."), &json!("response")));
    let upstream = stage.upstream().await;
    assert_eq!(
        (&upstream["requests"], &upstream["failures"]),
        (&json!(22), &json!(2)),
        "two refusals show it: {upstream}"
    );
}

/// An upstream whose model calls `add` once. It knows only its own items, and has `/v1/responses` if `has_responses`.
fn replaceable(call: &Call, has_responses: bool) -> Reply {
    let (text, is_native) = (call.text(), call.path == "/v1/responses");
    let has_output = text.contains("function_call_output") || text.contains(r#""role":"tool""#);
    if is_native && !has_responses {
        return Reply::new(404, r#"{"detail":"Not Found"}"#);
    }
    if is_native && text.contains(r#""id":"fc_"#) && !text.contains(r#""id":"fc_upstream""#) {
        return Reply::new(404, r#"{"error":{"message":"Item with id 'fc_x' not found."}}"#);
    }
    let arguments = r#"{\"a\":1,\"b\":2}"#;
    let said =
        r#"{"type":"message","id":"msg_upstream","role":"assistant","content":[{"type":"output_text","text":"3"}]}"#;
    let called = format!(
        r#"{{"type":"function_call","id":"fc_upstream","call_id":"c1","name":"add","arguments":"{arguments}"}}"#
    );
    let function = format!(r#"{{"id":"c1","type":"function","function":{{"name":"add","arguments":"{arguments}"}}}}"#);
    Reply::new(
        200,
        match (is_native, has_output) {
            (true, false) => format!(r#"{{"status":"completed","output":[{called}]}}"#),
            (true, true) => format!(r#"{{"status":"completed","output":[{said}]}}"#),
            (false, false) => format!(r#"{{"choices":[{{"message":{{"tool_calls":[{function}]}}}}]}}"#),
            (false, true) => r#"{"choices":[{"message":{"content":"3"}}]}"#.to_owned(),
        },
    )
}

#[tokio::test]
async fn a_row_that_was_begun_in_one_dialect_goes_on_in_the_other_when_the_upstream_was_replaced() {
    for was_native in [false, true] {
        let upstream = FakeUpstream::start();
        upstream.reply(move |call| replaceable(call, was_native));
        let stage = Stage::at(&upstream, &[]).await;
        let mut command = stage.command();
        // The model and the tool have answered, and the model is to be asked again.
        command.env("FAILPOINTS", "step.kept=1*off->1*return(crash)");
        let mut server = Process::start(command).await;
        let tools = json!([{ "type": "function", "name": "add" }]);
        let row = json!({ "model": "m", "input": "How much is 1 and 2?", "tools": tools });
        let id = submit(&server.client(), &[("row", row)], json!({})).await;
        until("the server to die", || !server.is_running()).await;
        let begun_through = upstream.row_calls().last().expect("a call").path.clone();

        upstream.reply(move |call| replaceable(call, !was_native));
        let server = stage.serve().await;
        let client = server.client();
        let batch = client.wait_for(&id, "completed").await;

        let results = client.results(&batch).await;
        assert!(results.errors.is_empty(), "{:?}", results.errors);
        let response = &results.output[0]["response"]["body"];
        assert_eq!(types(response), ["function_call", "function_call_output", "message"]);
        let ended_through = upstream.row_calls().last().expect("a call").path.clone();
        let expected = ["/v1/chat/completions", "/v1/responses"];
        let [begun, ended] = if was_native { [expected[1], expected[0]] } else { expected };
        assert_eq!([begun_through.as_str(), ended_through.as_str()], [begun, ended]);
    }
}

#[tokio::test]
async fn what_a_chat_upstream_cannot_be_told_is_refused_by_name() {
    let stage = Stage::with_flags(&["--upstream-responses", "chat"]).await;

    let line = stage.error(json!({ "model": "m", "input": "Hi", "truncation": "auto" })).await;

    assert_eq!(line["error"]["code"], "unsupported");
    assert!(line["error"]["message"].as_str().expect("a message").contains("'truncation'"), "{line}");
}

#[tokio::test]
async fn an_upstream_that_fails_gives_an_error_line_as_for_every_other_row() {
    for dialect in ["native", "chat"] {
        let stage = Stage::with_flags(&["--upstream-responses", dialect]).await;

        let line = stage.error(json!({ "model": "simulator-fail-400", "input": "Hi" })).await;

        assert_eq!((&line["response"]["status_code"], &line["error"]), (&json!(400), &json!(null)));
    }
}

#[tokio::test]
async fn other_endpoints_are_not_touched() {
    let stage = Stage::new().await;
    let server = stage.serve().await;
    let client = server.client();
    let rows = [("chat", json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }], "tools": [] }))];

    let id = submit_to(&client, "/v1/chat/completions", &rows, json!({})).await;
    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(client.results(&batch).await.output[0]["response"]["body"]["object"], "chat.completion");
    // And the endpoint of a row decides, not its body.
    let id = submit(&client, &[("row", json!({ "model": "m", "input": "Hi" }))], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;
    assert_eq!(client.results(&batch).await.output[0]["response"]["body"]["object"], "response");
}

#[tokio::test]
async fn rows_may_use_tools_that_are_the_upstreams_affair_in_any_shape() {
    let stage = Stage::with_flags(&["--upstream-responses", "native"]).await;
    let tools = json!([
        { "type": "web_search" },
        {
            "type": "mcp", "server_label": "x", "server_url": "https://mcp.example.com",
            "allowed_tools": { "read_only": true },
        },
        { "type": "function", "name": "mine", "parameters": null, "strict": null },
    ]);

    let response = stage.response(json!({ "model": "m", "input": "Hi", "tools": tools })).await;

    assert_eq!(types(&response), ["message"]);
}

#[tokio::test]
async fn what_has_no_meaning_in_a_batch_is_refused_by_name() {
    let stage = Stage::new().await;
    let line = stage.error(json!({ "model": "m", "input": "Hi", "background": true })).await;

    assert_eq!(line["error"]["code"], "unsupported");
    assert!(line["error"]["message"].as_str().expect("a message").contains("'background'"), "{line}");
}

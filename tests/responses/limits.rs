//! What a response must keep to, and how it ends when it has reached that.

use serde_json::{Value, json};

use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::stage::{Stage, call, scripted, types};

fn endless(functions: &[&str]) -> Value {
    scripted(json!({ "turns": [[call("add", json!({ "a": 1, "b": 1 }))]], "endless": true }), functions)
}

async fn reached(flags: &[&str], body: Value) -> (Value, usize) {
    let stage = Stage::with_flags(flags).await;
    let response = stage.response(body).await;
    assert_eq!(response["status"], "incomplete", "{response}");
    assert_eq!(response["completed_at"], Value::Null);
    (response, stage.calls("add").len())
}

#[tokio::test]
async fn a_model_that_never_ends_is_ended() {
    let (response, calls) = reached(&[], endless(&["add"])).await;

    assert_eq!(response["incomplete_details"]["limit"], "max_iterations");
    assert_eq!(calls, 10);
    assert_eq!(types(&response), ["function_call", "function_call_output"].repeat(10));
}

#[tokio::test]
async fn a_row_can_ask_for_fewer_tool_calls_and_not_for_more() {
    for (flags, most) in [(&[][..], 3), (&["--max-tool-calls", "2"], 2)] {
        let mut body = endless(&["add"]);
        body["max_tool_calls"] = json!(3);

        let (response, calls) = reached(flags, body).await;

        assert_eq!(response["incomplete_details"]["limit"], "max_tool_calls");
        assert_eq!(response["max_tool_calls"], 3);
        assert_eq!(calls, most);
    }
}

#[tokio::test]
async fn tokens_time_and_what_tools_say_are_bounded() {
    for (flags, limit) in [
        (["--max-response-tokens", "1"], "max_tokens"),
        (["--max-response-time", "1ns"], "max_time"),
        (["--max-tool-output", "0B"], "max_tool_output"),
    ] {
        let (response, calls) = reached(&flags, endless(&["add"])).await;

        assert_eq!(response["incomplete_details"]["limit"], limit);
        assert!(calls <= 1, "{limit}: {calls}");
    }
}

#[tokio::test]
async fn max_output_tokens_holds_for_all_calls_together() {
    let mut body = endless(&["add"]);
    body["max_output_tokens"] = json!(20);

    let (response, _) = reached(&[], body).await;

    assert_eq!(response["incomplete_details"], json!({ "reason": "max_output_tokens" }));
}

#[tokio::test]
async fn what_the_models_of_a_row_say_together_is_bounded() {
    let upstream = FakeUpstream::start();
    let said = "x".repeat(6 << 20);
    upstream.reply(move |call| {
        let text = json!([{ "type": "output_text", "text": said, "annotations": [] }]);
        let message =
            json!({ "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": text });
        let asks =
            json!({ "type": "function_call", "id": "fc_1", "call_id": call.key(), "name": "echo", "arguments": "{}" });
        let answer = json!({ "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m",
            "output": [message, asks] });
        Reply::new(200, answer.to_string())
    });
    let stage = Stage::at(&upstream, &["--upstream-responses", "native"]).await;

    let line =
        stage.error(json!({ "model": "m", "input": "Hi", "tools": [{ "type": "function", "name": "echo" }] })).await;

    assert_eq!(line["error"]["code"], "invalid_upstream_answer");
    assert!(line["error"]["message"].as_str().expect("a text").contains("are together larger than 16777216"), "{line}");
    assert_eq!(upstream.row_calls().len(), 3);
}

#[tokio::test]
async fn what_mcp_servers_offer_to_a_row_is_bounded() {
    let servers = "[[mcp_servers]]\nlabel = 'a'\nurl = 'TOOLS/a'\n[[mcp_servers]]\nlabel = 'b'\nurl = 'TOOLS/b'\n";
    let stage = Stage::with(&["--latency", "0ms"], servers, &[]).await;
    stage.tools.reply(|call| {
        let asked: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let tool = json!({ "name": "t", "description": "x".repeat(3 << 20), "inputSchema": { "type": "object" } });
        let result = match asked["method"].as_str() {
            Some("initialize") => json!({ "protocolVersion": asked["params"]["protocolVersion"], "capabilities": {},
                "serverInfo": { "name": "s", "version": "1" } }),
            Some("tools/list") => json!({ "tools": [tool] }),
            _ => return Reply::new(202, ""),
        };
        let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
        Reply::new(200, answer.to_string()).header("content-type", "application/json")
    });
    let server = |label: &str| json!({ "type": "mcp", "server_label": label });
    let row = |servers: Value| json!({ "model": "m", "input": "Hi", "tools": servers });

    let results =
        stage.results(&[("one", row(json!([server("a")]))), ("two", row(json!([server("a"), server("b")])))]).await;

    assert_eq!(results.output_ids(), ["one"]);
    let error = &results.errors[0]["error"];
    assert_eq!(error["code"], "unsupported");
    assert!(error["message"].as_str().expect("a text").contains("offer more than 4194304 bytes"), "{error}");
}

/// Whatever is nested a hundred thousand deep costs nobody the stack: neither what a model says and asks for, nor what
/// a tool answers, nor the row itself.
#[tokio::test]
async fn json_of_any_depth_is_survived() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let arguments = format!(r#"{{"a":{deep}}}"#);
    let (said, asked) = (deep.clone(), arguments.clone());
    let upstream = FakeUpstream::start();
    upstream.reply(move |call| {
        let is_first = !call.text().contains("function_call_output");
        let asks = json!({ "type": "function_call", "id": "fc_1", "call_id": "c", "name": "echo", "arguments": asked });
        let item = if is_first { asks.to_string() } else { format!(r#"{{"type":"odd","content":{said},"x":{said}}}"#) };
        let head = r#""id":"resp_1","object":"response","created_at":1,"status":"completed","model":"m""#;
        Reply::new(200, format!(r#"{{{head},"output":[{item}],"odd":{said},"usage":{said}}}"#))
    });
    let stage = Stage::at(&upstream, &["--upstream-responses", "native"]).await;
    let odd: Box<serde_json::value::RawValue> = serde_json::from_str(&deep).expect("JSON");
    let odd = serde_json::to_string(&odd).expect("JSON");
    let tools = r#"[{"type":"function","name":"echo"}]"#;
    let line = |id: &str, rest: &str| {
        format!(r#"{{"custom_id":"{id}","method":"POST","url":"/v1/responses","body":{{"model":"m",{rest}}}}}"#)
    };
    let lines = [
        line("plain", r#""input":"Hi""#),
        line("tool", &format!(r#""input":"Hi","tools":{tools}"#)),
        line("deep", &format!(r#""input":[{{"role":"user","content":{odd}}}],"tools":{tools},"text":{odd}"#)),
        line(
            "schema",
            &format!(r#""input":"Hi","text":{{"format":{{"type":"json_schema","schema":{{"not":{odd}}}}}}}"#),
        ),
    ];
    let server = stage.serve().await;
    let client = server.client();
    let file = client.upload(lines.join("\n")).await;
    let batch = json!({ "input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h",
        "metadata": { "ensure_schema": "true" } });
    let id = client.post("/v1/batches", &batch).await.ok()["id"].as_str().expect("an id").to_owned();

    let batch = client.wait_for(&id, "completed").await;

    assert_eq!(batch["request_counts"]["total"], 4);
    assert_eq!(
        batch["request_counts"]["completed"]
            .as_u64()
            .zip(batch["request_counts"]["failed"].as_u64())
            .map(|(a, b)| a + b),
        Some(4)
    );
}

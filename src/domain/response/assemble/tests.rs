//! What response comes of which steps.

use super::*;
use crate::domain::ids::BatchId;
use crate::domain::response::{StepBody, StepState};
use crate::domain::usage::Usage;

fn row() -> RequestId {
    RequestId { batch: BatchId(uuid::Uuid::from_u128(0xabc)), row: 3 }
}

fn step(path: &str, body: StepBody) -> Step {
    let path = StepPath::parse(path).expect("a path");
    let (started_at, ended_at) = (Timestamp(5_000), Some(Timestamp(6_000)));
    Step { seq: 0, path, body, state: StepState::Completed, attempts: 1, error: None, started_at, ended_at }
}

/// A turn with these items, of an upstream that says nothing of tokens.
fn turn(path: &str, items: &[Value]) -> Step {
    ended(path, items, TurnEnd::Completed, None)
}

/// A turn that used `n` tokens of the prompt, and twice, three times… as many of the other kinds.
fn using(path: &str, items: &[Value], n: u64) -> Step {
    let usage = Usage {
        input_tokens: n,
        cached_tokens: 2 * n,
        output_tokens: 3 * n,
        reasoning_tokens: 4 * n,
        total_tokens: 5 * n,
    };
    ended(path, items, TurnEnd::Completed, Some(TokenUsage { usage, cache_write_tokens: 6 * n }))
}

fn ended(path: &str, items: &[Value], end: TurnEnd, usage: Option<TokenUsage>) -> Step {
    let output = items.iter().map(raw).collect();
    let turn = Turn { model: format!("model of {path}"), created_at: 70, end, output, usage };
    step(path, StepBody::ModelCall(Some(turn)))
}

/// The output of a tool; of a failed one, if it begins so.
fn said(path: &str, output: &str) -> Step {
    let call = ToolCall { call_id: "unused".to_owned(), name: "unused".to_owned(), arguments: String::new() };
    let output = ToolOutput { output: output.to_owned(), is_error: output.starts_with("failed") };
    step(path, StepBody::ToolCall(call, Some(output)))
}

fn call(name: &str) -> Value {
    json!({ "type": "function_call", "id": format!("fc_{name}"), "call_id": format!("call_{name}"), "name": name,
        "arguments": "{\"a\": 1}" })
}

fn message(text: &str) -> Value {
    json!({ "type": "message", "id": format!("msg_{text}"), "content": [{ "type": "output_text", "text": text }] })
}

/// Functions that begin with `every__` are tools of a server, `every__risky` only with approval.
fn every(name: &str) -> Option<McpFunction> {
    let tool = name.strip_prefix("every__")?.to_owned();
    let needs_approval = tool == "risky";
    Some(McpFunction { label: "every".to_owned(), tool, needs_approval })
}

/// The response as it is written.
fn written(body: &str, lists: &[McpList], steps: &[Step], end: &ScopeEnd) -> String {
    let body = &Fields::read(body.as_bytes()).expect("an object");
    let assembly = Assembly { row: row(), body, lists, mcp: &every, steps, end, ended_at: Timestamp(99_500) };
    String::from_utf8(assembly.response().to_json()).expect("JSON is UTF-8")
}

fn of(body: &Value, steps: &[Step], end: &ScopeEnd) -> Value {
    serde_json::from_str(&written(&body.to_string(), &[], steps, end)).expect("it is JSON")
}

fn completed(steps: &[Step]) -> Value {
    of(&json!({ "model": "m", "input": "Hi" }), steps, &ScopeEnd::Completed)
}

/// What the items of a response are, each by its type and its id.
fn told(response: &Value) -> Vec<String> {
    let items = response["output"].as_array().expect("an output");
    items.iter().map(|item| format!("{} {}", item["type"], item["id"]).replace('"', "")).collect()
}

/// An id of this row.
fn id(kind: &str, place: &str) -> String {
    let digits = row().to_string().replace("batch_req_", "");
    format!("{kind}_{digits}_{place}")
}

#[test]
fn tokens_are_those_of_all_calls_of_models_and_of_agents() {
    let steps = [
        using("0", &[call("agent")], 1),
        using("0.0.0", &[call("agent")], 10),
        using("0.0.0.0.0", &[message("deep")], 100),
        said("0.0.0.0", "deep"),
        turn("0.0.1", &[message("an upstream that does not say")]),
        said("0.0", "done"),
        using("1", &[message("done")], 1000),
    ];

    let usage = completed(&steps)["usage"].clone();

    assert_eq!(
        usage,
        json!({
            "input_tokens": 1111,
            "input_tokens_details": { "cached_tokens": 2222, "cache_write_tokens": 6666 },
            "output_tokens": 3333,
            "output_tokens_details": { "reasoning_tokens": 4444 },
            "total_tokens": 5555,
        })
    );
}

#[test]
fn tokens_of_which_no_upstream_says_anything_are_null() {
    assert_eq!(completed(&[turn("0", &[call("f")]), said("0.0", "x"), turn("1", &[])])["usage"], Value::Null);
    assert_eq!(completed(&[])["usage"], Value::Null);
}

#[test]
fn outputs_stand_after_the_items_of_their_turn_in_the_order_of_its_calls() {
    // Kept in another order: the second tool ended first.
    let steps = [
        turn("1", &[message("bye")]),
        turn("0", &[json!({ "type": "reasoning", "id": "rs" }), call("f"), message("wait"), call("g")]),
        said("0.1", "of g"),
        said("0.0", "of f"),
    ];

    let response = completed(&steps);

    let output = |place: &str| format!("function_call_output {}", id("fco", place));
    assert_eq!(
        told(&response),
        [
            "reasoning rs",
            "function_call fc_f",
            "message msg_wait",
            "function_call fc_g",
            &output("0_0_0"),
            &output("0_1_0"),
            "message msg_bye",
        ]
    );
    assert_eq!(
        response["output"][5],
        json!({ "id": id("fco", "0_1_0"), "type": "function_call_output", "status": "completed", "call_id": "call_g",
            "output": "of g" })
    );
}

#[test]
fn a_call_without_an_answer_has_no_output() {
    let response = completed(&[turn("0", &[call("f"), call("clients")]), said("0.0", "of f")]);

    assert_eq!(
        told(&response),
        ["function_call fc_f", "function_call fc_clients", &format!("function_call_output {}", id("fco", "0_0_0"))]
    );
}

#[test]
fn steps_of_agents_are_not_shown() {
    let steps = [
        turn("0", &[call("agent")]),
        turn("0.0.0", &[call("f")]),
        said("0.0.0.0", "of f"),
        turn("0.0.1", &[message("inner")]),
        said("0.0", "inner"),
        turn("1", &[message("outer")]),
    ];

    let output = format!("function_call_output {}", id("fco", "0_0_0"));
    assert_eq!(told(&completed(&steps)), ["function_call fc_agent", &output, "message msg_outer"]);
}

#[test]
fn an_answer_that_was_corrected_is_left_out_and_the_last_one_is_not() {
    let steps = [
        turn("0", &[message("wrong")]),
        turn("1", &[call("f")]),
        said("1.0", "x"),
        turn("2", &[message("wrong again")]),
        turn("3", &[message("right")]),
    ];
    let called = ["function_call fc_f".to_owned(), format!("function_call_output {}", id("fco", "1_0_0"))];
    let then = |last: &str| [&called[..], &[format!("message msg_{last}")]].concat();

    assert_eq!(told(&completed(&steps)), then("right"));
    assert_eq!(told(&completed(&steps[..4])), then("wrong again"));
}

#[test]
fn the_offers_of_servers_come_first_and_their_calls_stand_where_the_model_made_them() {
    let tools = vec![raw(&json!({ "name": "echo" }))];
    let lists = ["every", "other"].map(|label| McpList { label: label.to_owned(), tools: tools.clone() });
    let steps = [turn("0", &[call("every__echo"), call("f"), call("every__sum")]), said("0.0", "e"), said("0.1", "x")];

    let response = written(r#"{"model":"m"}"#, &lists, &steps, &ScopeEnd::Completed);

    let response: Value = serde_json::from_str(&response).expect("it is JSON");
    assert_eq!(
        told(&response),
        [
            format!("mcp_list_tools {}", id("mcpl", "0")),
            format!("mcp_list_tools {}", id("mcpl", "1")),
            format!("mcp_call {}", id("mcp", "0_0_0")),
            "function_call fc_f".to_owned(),
            format!("mcp_call {}", id("mcp", "0_2_0")),
            format!("function_call_output {}", id("fco", "0_1_0")),
        ]
    );
    assert_eq!(
        response["output"][1],
        json!({ "id": id("mcpl", "1"), "type": "mcp_list_tools", "server_label": "other", "error": null,
            "tools": [{ "name": "echo" }] })
    );
}

#[test]
fn a_call_of_a_servers_tool_is_completed_failed_or_incomplete() {
    let calls = ["every__good", "every__bad", "every__late"].map(call);

    let response = completed(&[turn("0", &calls), said("0.0", "good"), said("0.1", "failed: why")]);

    let item = |no: usize, name: &str, status: &str, output: Value, error: Value| {
        json!({
            "id": id("mcp", &format!("0_{no}_0")), "type": "mcp_call", "status": status, "server_label": "every",
            "approval_request_id": null, "name": name, "arguments": "{\"a\": 1}", "output": output, "error": error,
        })
    };
    let error = json!({
        "type": "mcp_tool_execution_error", "content": [{ "type": "text", "text": "failed: why" }],
    });
    let expected = [
        item(0, "good", "completed", json!("good"), Value::Null),
        item(1, "bad", "failed", Value::Null, error),
        item(2, "late", "incomplete", Value::Null, Value::Null),
    ];
    assert_eq!(response["output"], json!(expected));
}

#[test]
fn a_call_that_needs_approval_is_a_request_for_it() {
    let response = completed(&[turn("0", &[call("every__risky")])]);

    assert_eq!(
        response["output"],
        json!([{ "id": id("mcpr", "0_0_0"), "type": "mcp_approval_request", "server_label": "every", "name": "risky",
            "arguments": "{\"a\": 1}" }])
    );
    assert_eq!(response["status"], "completed");
}

#[test]
fn what_is_secret_in_tools_is_not_repeated() {
    let tools = json!([
        { "type": "mcp", "server_label": "x", "server_url": "https://x.example", "authorization": "sesame",
            "headers": { "x-key": "sesame" }, "require_approval": "never" },
        { "type": "function", "name": "f" },
        { "type": "function", "name": "g", "parameters": {}, "strict": true, "description": "G." },
    ]);

    let response = of(&json!({ "model": "m", "tools": tools }), &[turn("0", &[])], &ScopeEnd::Completed);

    assert_eq!(
        response["tools"],
        json!([
            { "type": "mcp", "server_label": "x", "server_url": "https://x.example", "require_approval": "never" },
            { "type": "function", "name": "f", "parameters": null, "strict": null },
            { "type": "function", "name": "g", "parameters": {}, "strict": true, "description": "G." },
        ])
    );
}

#[test]
fn each_limit_says_which_it_was() {
    let limits = [
        (Limit::Iterations, "max_iterations"),
        (Limit::Depth, "max_depth"),
        (Limit::ToolCalls, "max_tool_calls"),
        (Limit::Time, "max_time"),
        (Limit::Tokens, "max_tokens"),
        (Limit::ToolOutput, "max_tool_output"),
    ];
    let details = |limit| {
        let response = of(&json!({}), &[turn("0", &[call("f")])], &ScopeEnd::Reached(limit));
        assert_eq!((&response["status"], &response["completed_at"]), (&json!("incomplete"), &Value::Null), "{limit:?}");
        response["incomplete_details"].clone()
    };
    for (limit, name) in limits {
        let message = format!("The response was ended by the limit '{name}'.");
        assert_eq!(details(limit), json!({ "limit": name, "message": message }));
    }
    assert_eq!(details(Limit::OutputTokens), json!({ "reason": "max_output_tokens" }));
}

#[test]
fn a_response_ends_as_its_last_turn_did() {
    let why = json!({ "reason": "content_filter" });
    let error = json!({ "code": "server_error", "message": "No." });
    let last = |end: TurnEnd| [turn("0", &[call("f")]), said("0.0", "x"), ended("1", &[], end, None)];
    let how = |steps: &[Step], end: &ScopeEnd| {
        let response = of(&json!({}), steps, end);
        ["status", "completed_at", "error", "incomplete_details"].map(|name| response[name].clone())
    };

    let cut_off = how(&last(TurnEnd::Incomplete(raw(&why))), &ScopeEnd::CutOff);
    assert_eq!(cut_off, [json!("incomplete"), Value::Null, Value::Null, why]);
    let failed = how(&last(TurnEnd::Failed(raw(&error))), &ScopeEnd::Failed);
    assert_eq!(failed, [json!("failed"), Value::Null, error, Value::Null]);
    let completed = how(&last(TurnEnd::Completed), &ScopeEnd::Completed);
    assert_eq!(completed, [json!("completed"), json!(99), Value::Null, Value::Null]);
}

#[test]
fn members_that_a_request_does_not_have_are_as_openai_has_them() {
    // Null is the same as absent, and what only a response has is not taken from a request.
    let body = json!({ "model": "asked", "input": "Hi", "temperature": null, "status": "x", "usage": 1, "output": [1],
        "id": "x", "object": "x", "created_at": 1, "completed_at": 1, "error": "x", "incomplete_details": "x" });

    let response = of(&body, &[], &ScopeEnd::Reached(Limit::Time));

    let expected = json!({
        "id": "resp_00000000000000000000000000000abc00000003", "object": "response", "created_at": 99,
        "status": "incomplete", "completed_at": null, "background": false, "error": null,
        "incomplete_details": { "limit": "max_time", "message": "The response was ended by the limit 'max_time'." },
        "instructions": null, "max_output_tokens": null, "max_tool_calls": null, "model": "asked", "output": [],
        "parallel_tool_calls": true, "previous_response_id": null, "prompt": null, "prompt_cache_key": null,
        "prompt_cache_retention": null, "reasoning": { "effort": null, "summary": null }, "safety_identifier": null,
        "service_tier": null, "store": true, "temperature": 1.0, "text": { "format": { "type": "text" } },
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "usage": null,
        "user": null, "metadata": {},
    });
    assert_eq!(response, expected);
}

#[test]
fn members_of_a_request_are_repeated_as_they_are_written() {
    let members = [
        r#""background":true"#,
        r#""instructions":"Be brief. ""#,
        r#""max_output_tokens":100"#,
        r#""max_tool_calls":7"#,
        r#""parallel_tool_calls":false"#,
        r#""previous_response_id":"resp_1""#,
        r#""prompt_cache_key":"k""#,
        r#""prompt_cache_retention":"24h""#,
        r#""reasoning":{ "effort": "low" }"#,
        r#""safety_identifier":"s""#,
        r#""service_tier":"flex""#,
        r#""store":false"#,
        r#""temperature":0.70"#,
        r#""text":{"verbosity":"low"}"#,
        r#""tool_choice":{"type":"function","name":"f"}"#,
        r#""top_logprobs":2"#,
        r#""top_p":1e-1"#,
        r#""truncation":"auto""#,
        r#""user":"u""#,
        r#""metadata":{"b":"1","a":"2"}"#,
    ];
    let body = format!(r#"{{"input":"Hi","model":"asked",{}}}"#, members.join(","));

    let response = written(&body, &[], &[turn("0", &[]), turn("1", &[message("Hi")])], &ScopeEnd::Completed);

    for member in members {
        assert!(response.contains(member), "{member} is not in {response}");
    }
    assert!(response.contains(r#""model":"model of 1""#) && !response.contains("input\""), "{response}");
}

#[test]
fn a_response_is_the_same_however_often_it_is_put_together() {
    let lists = [McpList { label: "every".to_owned(), tools: Vec::new() }];
    let steps =
        [turn("0", &[call("every__echo"), call("every__risky"), call("f")]), said("0.0", "e"), said("0.2", "x")];
    let mut reversed = steps.to_vec();
    reversed.reverse();
    let once = |steps: &[Step]| written(r#"{"model":"m"}"#, &lists, steps, &ScopeEnd::Completed);

    assert_eq!(once(&steps), once(&steps));
    assert_eq!(once(&steps), once(&reversed));
}

#[test]
fn a_response_is_as_old_as_its_first_turn() {
    let mut untimed = turn("0", &[]);
    let StepBody::ModelCall(Some(first)) = &mut untimed.body else { panic!("it is a turn") };
    first.created_at = 0;

    assert_eq!(completed(&[turn("0", &[call("f")]), said("0.0", "x"), turn("1", &[])])["created_at"], 70);
    assert_eq!(completed(&[untimed])["created_at"], 5, "when the call was begun, if the upstream does not say");
}

//! What a response must keep to, and how it ends when it has reached that.

use serde_json::{Value, json};

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

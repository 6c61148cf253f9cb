//! Rows that call tools, through either API of the upstream.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::eventually::until;
use crate::common::fake_upstream::{Call, Reply};
use crate::stage::{Stage, call, items, last_text, scripted, submit, types};

/// A stage for each way in which an upstream can be asked.
async fn stages() -> Vec<Stage> {
    vec![
        Stage::with_flags(&["--upstream-responses", "native"]).await,
        Stage::with_flags(&["--upstream-responses", "chat"]).await,
        Stage::with(&["--latency", "0ms", "--no-responses"], "", &[]).await,
    ]
}

#[tokio::test]
async fn a_tool_is_called_and_the_model_goes_on_with_its_output() {
    for stage in stages().await {
        let script = json!({ "turns": [[call("add", json!({ "a": 2, "b": 3 }))]] });

        let response = stage.response(scripted(script, &["add"])).await;

        assert_eq!(response["status"], "completed");
        assert_eq!(types(&response), ["function_call", "function_call_output", "message"]);
        let [called, output, _] = &items(&response)[..] else { panic!("{response}") };
        assert_eq!(called["call_id"], output["call_id"]);
        assert_eq!(output["output"], "5");
        assert_eq!(last_text(&response), "5");
        let calls = stage.calls("add");
        assert_eq!(calls.len(), 1);
        assert_eq!(serde_json::from_slice::<Value>(&calls[0].body).expect("JSON"), json!({ "a": 2, "b": 3 }));
        assert!(calls[0].key().ends_with(".0.0"), "{}", calls[0].key());
    }
}

/// Answers a call with its arguments, once it is released. The first of the turn answers last.
fn held_and_the_first_last(call: &Call) -> Reply {
    let reply = Reply::new(200, call.text().to_owned()).held();
    if call.text().contains("\"a\":1,") { reply.after(Duration::from_millis(50)) } else { reply }
}

#[tokio::test]
async fn tools_of_one_turn_run_side_by_side_and_keep_their_ids() {
    for stage in stages().await {
        let turn = [
            call("add", json!({ "a": 1, "b": 1 })),
            call("mul", json!({ "a": 3, "b": 3 })),
            call("add", json!({ "a": 10, "b": 1 })),
        ];
        stage.tools.reply(held_and_the_first_last);
        let server = stage.serve().await;
        let client = server.client();
        let rows = [("row", scripted(json!({ "turns": [turn] }), &["add", "mul"]))];
        let id = submit(&client, &rows, json!({})).await;
        until("three calls at once", || stage.tools.running() == 3).await;
        stage.tools.release();
        let batch = client.wait_for(&id, "completed").await;
        let response = client.results(&batch).await.output[0]["response"]["body"].clone();

        let calls = ["function_call"; 3];
        let outputs = ["function_call_output"; 3];
        assert_eq!(types(&response), [&calls[..], &outputs, &["message"]].concat());
        let ids: Vec<&Value> = items(&response).iter().map(|item| &item["call_id"]).collect();
        assert_eq!(ids[0..3], ids[3..6]);
        assert_eq!(last_text(&response), r#"{"a":1,"b":1} | {"a":3,"b":3} | {"a":10,"b":1}"#);
    }
}

#[tokio::test]
async fn a_chain_of_five_is_one_response_with_all_its_tokens() {
    for stage in stages().await {
        let turns: Vec<_> = (1..=5).map(|n| json!([call("add", json!({ "a": n, "b": n }))])).collect();

        let response = stage.response(scripted(json!({ "turns": turns, "answer": "done" }), &["add"])).await;

        assert_eq!(types(&response), [["function_call", "function_call_output"].repeat(5), vec!["message"]].concat());
        assert_eq!(last_text(&response), "done");
        let upstream = stage.upstream().await;
        let tried_natively = upstream["failures"].as_u64().expect("a count");
        assert_eq!(upstream["requests"].as_u64().expect("a count") - tried_natively, 6, "{upstream}");
        let usage = &response["usage"];
        let number = |name: &str| usage[name].as_u64().expect("a count");
        assert_eq!(number("input_tokens") + number("output_tokens"), number("total_tokens"));
        assert!(number("output_tokens") >= 6, "{usage}");
        assert!(usage["input_tokens_details"]["cached_tokens"].is_u64() && usage["output_tokens_details"].is_object());
    }
}

#[tokio::test]
async fn bad_arguments_and_made_up_functions_are_answered_and_the_model_goes_on() {
    for stage in stages().await {
        let turn = [
            call("add", json!("not JSON")),
            call("add", json!({ "a": "one", "b": 1 })),
            call("subtract", json!({ "a": 1, "b": 1 })),
            call("mul", json!({ "a": 2, "b": 2 })),
        ];

        let response = stage.response(scripted(json!({ "turns": [turn] }), &["add", "mul"])).await;

        let text = last_text(&response);
        let said: Vec<&str> = text.split(" | ").collect();
        let [no_json, no_number, unknown, product] = &said[..] else { panic!("{text}") };
        assert!(no_json.contains("not valid JSON"), "{no_json}");
        assert!(no_number.contains("/a"), "{no_number}");
        assert!(unknown.contains("there is no function 'subtract'; there are: add, mul"), "{unknown}");
        assert_eq!(*product, "4");
        assert!(stage.calls("add").is_empty(), "what does not match is not called");
    }
}

#[tokio::test]
async fn functions_that_nobody_serves_end_the_loop_and_the_served_ones_of_their_turn_are_answered() {
    for stage in stages().await {
        let turn = [call("book_flight", json!({ "to": "Rome" })), call("add", json!({ "a": 1, "b": 2 }))];
        let mut body = scripted(json!({ "turns": [turn], "answer": "never reached" }), &["add"]);
        body["tools"].as_array_mut().expect("a list").push(json!({
            "type": "function", "name": "book_flight", "parameters": { "type": "object" }, "strict": true,
        }));

        let response = stage.response(body).await;

        assert_eq!(response["status"], "completed");
        assert_eq!(types(&response), ["function_call", "function_call", "function_call_output"]);
        assert_eq!(items(&response)[0]["name"], "book_flight");
        assert_eq!(items(&response)[2]["call_id"], items(&response)[1]["call_id"]);
    }
}

#[tokio::test]
async fn a_forced_call_is_forced_once() {
    for stage in stages().await {
        let mut body = scripted(json!({ "turns": [[call("add", json!({ "a": 1, "b": 2 }))]] }), &["add"]);
        body["tool_choice"] = json!("required");

        let response = stage.response(body).await;

        assert_eq!(response["tool_choice"], "required", "the response repeats what was asked");
        assert_eq!(last_text(&response), "3");
    }
}

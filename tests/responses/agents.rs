//! Agents: tools that are models with tools of their own.

use serde_json::{Value, json};

use crate::common::eventually::until;
use crate::common::process::Process;
use crate::stage::{Stage, call, items, last_text, scripted, submit, types};

const AGENTS: &str = "
[[agents]]
name = 'clerk'
description = 'Adds.'
model = 'm-clerk'
instructions = 'Add what you are given.'
tools = ['add']

[[agents]]
name = 'boss'
model = 'm-boss'
instructions = 'Ask the clerk, or yourself.'
tools = ['clerk', 'boss']
";

/// What an agent is asked so that its model follows a script.
fn task(agent: &str, script: &Value) -> Value {
    call(agent, json!({ "input": format!("simulate:{script}") }))
}

async fn stage(flags: &[&str]) -> Stage {
    Stage::with(&["--latency", "0ms"], AGENTS, flags).await
}

#[tokio::test]
async fn an_agent_answers_with_what_its_model_says_after_tools_of_its_own() {
    let stage = stage(&[]).await;
    let adds = json!({ "turns": [[call("add", json!({ "a": 20, "b": 22 }))]] });

    let response = stage.response(scripted(json!({ "turns": [[task("clerk", &adds)]] }), &["clerk"])).await;

    assert_eq!(types(&response), ["function_call", "function_call_output", "message"], "the agent's steps are its own");
    assert_eq!(items(&response)[1]["output"], "42");
    assert_eq!(last_text(&response), "42");
    assert!(stage.calls("add")[0].key().ends_with(".0.0.0.0"), "{}", stage.calls("add")[0].key());
    assert_eq!(stage.upstream().await["requests"], 4);
}

#[tokio::test]
async fn an_agents_model_is_called_at_the_server_that_has_it() {
    let other = Process::simulate(&["--latency", "0ms", "--no-responses"]).await;
    let stage = Stage::beside(&other, "m-clerk", "*", AGENTS).await;
    let adds = json!({ "turns": [[call("add", json!({ "a": 20, "b": 22 }))]] });

    let response = stage.response(scripted(json!({ "turns": [[task("clerk", &adds)]] }), &["clerk"])).await;

    assert_eq!(last_text(&response), "42");
    assert_eq!(stage.upstream().await["requests"], 2, "the row's own turns");
    let of_other = other.client().get("/stats").await.ok();
    assert!(
        of_other["requests"].as_u64() >= Some(2),
        "the agent's turns, through the API that its server has: {of_other}"
    );
}

#[tokio::test]
async fn the_tokens_of_agents_are_counted_with_those_of_the_row() {
    let stage = stage(&[]).await;
    let answers = json!({ "answer": "yes" });
    let alone = stage.response(scripted(json!({ "answer": "yes" }), &["clerk"])).await;
    let with_agent = stage.response(scripted(json!({ "turns": [[task("clerk", &answers)]] }), &["clerk"])).await;

    let output = |response: &Value| response["usage"]["output_tokens"].as_u64().expect("a count");
    assert!(output(&with_agent) >= output(&alone) + 2, "{} {}", with_agent["usage"], alone["usage"]);
}

#[tokio::test]
async fn agents_side_by_side_share_the_one_call_that_a_row_may_make() {
    let stage = stage(&[]).await;
    let adds = |n: i32| json!({ "turns": [[call("add", json!({ "a": n, "b": n }))]] });
    let turn = [task("clerk", &adds(1)), task("clerk", &adds(2)), task("clerk", &adds(3))];

    let response = stage.response(scripted(json!({ "turns": [turn] }), &["clerk"])).await;

    assert_eq!(last_text(&response), "2 | 4 | 6");
    assert_eq!(stage.upstream().await["peak_in_flight"], 1);
}

#[tokio::test]
async fn agents_may_call_agents_and_no_deeper_than_the_limit() {
    let deep = |levels: usize| {
        (0..levels).fold(json!({ "answer": "bottom" }), |script, _| json!({ "turns": [[task("boss", &script)]] }))
    };
    let stage = stage(&["--max-depth", "3"]).await;

    let response = stage.response(scripted(deep(3), &["boss"])).await;
    assert_eq!((response["status"].as_str(), last_text(&response)), (Some("completed"), "bottom"));

    let response = stage.response(scripted(deep(4), &["boss"])).await;
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["incomplete_details"]["limit"], "max_depth");
}

#[tokio::test]
async fn an_agent_that_never_ends_is_a_failed_tool() {
    let stage = stage(&["--max-iterations", "3"]).await;
    let endless = json!({ "turns": [[call("add", json!({ "a": 1, "b": 1 }))]], "endless": true });

    let response = stage.response(scripted(json!({ "turns": [[task("clerk", &endless)]] }), &["clerk"])).await;

    assert_eq!(response["status"], "completed");
    assert_eq!(last_text(&response), "The agent has not ended within 3 calls of its model.");
}

#[tokio::test]
async fn an_agent_whose_model_fails_is_a_failed_tool_and_no_failed_row() {
    let stage = stage(&[]).await;
    let fails = json!({ "turns": [[call("add", json!({ "a": 1, "b": 1 }))]], "fail": { "1": 400 } });
    let turn = [task("clerk", &fails), task("clerk", &json!({ "answer": "fine" }))];

    let response = stage.response(scripted(json!({ "turns": [turn] }), &["clerk"])).await;

    assert_eq!(last_text(&response), "The agent's model answered with status 400. | fine");
}

#[tokio::test]
async fn an_agent_whose_model_is_away_for_a_moment_makes_nobody_pay_twice() {
    let stage = stage(&[]).await;
    let fails = json!({ "turns": [[call("add", json!({ "a": 1, "b": 1 }))]], "fail_once": { "1": 503 } });
    let turn = [task("clerk", &fails), task("clerk", &json!({ "answer": "fine" }))];

    let response = stage.response(scripted(json!({ "turns": [turn] }), &["clerk"])).await;

    assert_eq!(last_text(&response), "2 | fine");
    let upstream = stage.upstream().await;
    assert_eq!((&upstream["requests"], &upstream["repeats"]), (&json!(6), &json!(1)), "{upstream}");
    assert_eq!(stage.calls("add").len(), 1);
}

#[tokio::test]
async fn a_crash_within_an_agent_repeats_none_of_its_steps_that_had_ended() {
    for step in 0..5 {
        let stage = stage(&[]).await;
        let adds = json!({ "turns": [[call("add", json!({ "a": 20, "b": 22 }))]] });
        let body = scripted(json!({ "turns": [[task("clerk", &adds)]] }), &["clerk"]);
        let mut command = stage.command();
        command.env("FAILPOINTS", format!("step.kept={step}*off->1*return(crash)"));
        let mut server = Process::start(command).await;
        let id = submit(&server.client(), &[("row", body)], json!({})).await;
        until("the server to die", || !server.is_running()).await;

        let server = stage.serve().await;
        let client = server.client();
        let batch = client.wait_for(&id, "completed").await;

        assert_eq!(last_text(&client.results(&batch).await.output[0]["response"]["body"]), "42");
        let upstream = stage.upstream().await;
        assert_eq!((&upstream["requests"], &upstream["repeats"]), (&json!(4), &json!(0)), "step {step}");
        assert_eq!(stage.calls("add").len(), 1, "step {step}");
    }
}

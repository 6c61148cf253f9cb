//! What follows from which steps, case by case.

use serde_json::json;
use serde_json::value::to_raw_value;

use super::*;
use crate::domain::response::{StepBody, StepState, TokenUsage, ToolOutput};
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

fn step(path: &str, body: StepBody, state: StepState) -> Step {
    let path = StepPath::parse(path).expect("a path");
    let started_at = Timestamp(0);
    let ended_at = (state == StepState::Completed).then_some(Timestamp(1_000));
    Step { seq: 0, path, body, state, attempts: 1, error: None, started_at, ended_at }
}

/// A turn that asks for these functions and has used ten tokens, six of them for its answer.
fn turn(path: &str, functions: &[&str]) -> Step {
    ended(path, functions, TurnEnd::Completed)
}

fn ended(path: &str, functions: &[&str], end: TurnEnd) -> Step {
    let call = |name: &&str| json!({ "type": "function_call", "call_id": name, "name": name, "arguments": "{}" });
    let message = || json!({ "type": "message", "content": [{ "type": "output_text", "text": path }] });
    let items = if functions.is_empty() { vec![message()] } else { functions.iter().map(call).collect() };
    let output = items.iter().map(|item| to_raw_value(item).expect("JSON")).collect();
    let usage = Usage { input_tokens: 4, output_tokens: 6, total_tokens: 10, ..Usage::default() };
    let usage = Some(TokenUsage { usage, cache_write_tokens: 0 });
    let turn = Turn { model: "m".to_owned(), created_at: 0, end, output, usage };
    step(path, StepBody::ModelCall(Some(turn)), StepState::Completed)
}

fn tool_call(name: &str) -> ToolCall {
    ToolCall { call_id: name.to_owned(), name: name.to_owned(), arguments: "{}".to_owned() }
}

/// A tool that has said ten bytes.
fn answered(path: &str) -> Step {
    let output = ToolOutput { output: "0123456789".to_owned(), is_error: false };
    step(path, StepBody::ToolCall(tool_call("f"), Some(output)), StepState::Completed)
}

fn begun(path: &str) -> Step {
    let body = if StepPath::parse(path).expect("a path").is_model_call() {
        StepBody::ModelCall(None)
    } else {
        StepBody::ToolCall(tool_call("f"), None)
    };
    step(path, body, StepState::InProgress)
}

fn limits() -> Limits {
    Limits {
        iterations: 10,
        depth: 8,
        tool_calls: 100,
        time: Duration::from_secs(60),
        tokens: None,
        output_tokens: None,
        tool_output_bytes: 1000,
    }
}

/// Functions that begin with `f` are served, with `a` after approval, others are not. The answer of turn 9 is good.
fn decide(steps: &[Step], scope: &str, limits: &Limits) -> Next {
    let served = |name: &str| match &name[..1] {
        "f" => Served::Here,
        "a" => Served::AfterApproval,
        _ => Served::Elsewhere,
    };
    let scope = if scope.is_empty() { StepPath::root() } else { StepPath::parse(scope).expect("a path") };
    decide_next(steps, &scope, &Rules { limits, served: &served, check: &|_| Ok(()), corrections: 0 })
}

fn tools(calls: &[(u32, &str)]) -> Next {
    Next::CallTools(calls.iter().map(|(no, name)| (*no, tool_call(name))).collect())
}

#[test]
fn what_follows_from_the_steps_so_far() {
    let cut_off = TurnEnd::Incomplete(to_raw_value(&json!({})).expect("JSON"));
    let failed = TurnEnd::Failed(to_raw_value(&json!({})).expect("JSON"));
    let cases: Vec<(&str, Vec<Step>, Next)> = vec![
        ("nothing yet", vec![], Next::CallModel),
        ("a call of the model that did not end", vec![begun("0")], Next::CallModel),
        ("an answer", vec![turn("0", &[])], Next::End(ScopeEnd::Completed)),
        ("an answer that was cut off", vec![ended("0", &["f"], cut_off)], Next::End(ScopeEnd::CutOff)),
        ("an answer that says it failed", vec![ended("0", &[], failed)], Next::End(ScopeEnd::Failed)),
        ("tools to call", vec![turn("0", &["f1", "f2"])], tools(&[(0, "f1"), (1, "f2")])),
        ("one that did not end", vec![turn("0", &["f1", "f2"]), answered("0.0"), begun("0.1")], tools(&[(1, "f2")])),
        ("the second ended first", vec![turn("0", &["f1", "f2"]), begun("0.0"), answered("0.1")], tools(&[(0, "f1")])),
        ("all ended", vec![turn("0", &["f1", "f2"]), answered("0.1"), answered("0.0")], Next::CallModel),
        ("a function of the client's", vec![turn("0", &["x"])], Next::End(ScopeEnd::Completed)),
        ("one of each", vec![turn("0", &["x", "f"])], tools(&[(1, "f")])),
        ("one of each, and ours ended", vec![turn("0", &["x", "f"]), answered("0.1")], Next::End(ScopeEnd::Completed)),
        ("one that needs approval", vec![turn("0", &["a"])], Next::End(ScopeEnd::Completed)),
        ("approval, and ours ended", vec![turn("0", &["f", "a"]), answered("0.0")], Next::End(ScopeEnd::Completed)),
        (
            "one that is not served any more, and was answered",
            vec![turn("0", &["x"]), answered("0.0")],
            Next::CallModel,
        ),
        ("a second turn", vec![turn("0", &["f"]), answered("0.0"), turn("1", &["f"])], tools(&[(0, "f")])),
        (
            "steps in another order",
            vec![turn("1", &[]), answered("0.0"), turn("0", &["f"])],
            Next::End(ScopeEnd::Completed),
        ),
        ("an agent's steps are no steps of the row", vec![turn("0", &["f"]), turn("0.0.0", &[])], tools(&[(0, "f")])),
    ];
    for (name, steps, expected) in cases {
        assert_eq!(decide(&steps, "", &limits()), expected, "{name}");
    }
}

#[test]
fn what_only_the_client_can_do_ends_the_turn_once_ours_is_done() {
    let with_custom_tool = |functions: &[&str]| {
        let mut step = turn("0", functions);
        if let StepBody::ModelCall(Some(turn)) = &mut step.body {
            turn.output.push(to_raw_value(&json!({ "type": "custom_tool_call", "call_id": "c" })).expect("JSON"));
        }
        step
    };

    assert_eq!(decide(&[with_custom_tool(&[])], "", &limits()), Next::End(ScopeEnd::Completed));
    assert_eq!(decide(&[with_custom_tool(&["f"])], "", &limits()), tools(&[(0, "f")]));
    let steps = [with_custom_tool(&["f"]), answered("0.0")];
    assert_eq!(decide(&steps, "", &limits()), Next::End(ScopeEnd::Completed));
}

#[test]
fn limits_hold_within_agents_that_have_not_ended() {
    // The agent at 0.0 has taken two seconds of its model and one of its tool, and its row one.
    let steps = [turn("0", &["f"]), begun("0.0"), turn("0.0.0", &["f"]), answered("0.0.0.0"), turn("0.0.1", &["f"])];
    let reached = |limit| Next::End(ScopeEnd::Reached(limit));

    assert_eq!(decide(&steps, "0.0", &Limits { time: Duration::from_secs(4), ..limits() }), reached(Limit::Time));
    assert_eq!(decide(&steps, "0.0", &Limits { tool_calls: 2, ..limits() }), reached(Limit::ToolCalls));
    let enough = Limits { time: Duration::from_millis(4_001), tool_calls: 3, ..limits() };
    assert_eq!(decide(&steps, "0.0", &enough), tools(&[(0, "f")]));
}

#[test]
fn a_tool_that_was_begun_before_a_crash_counts_once() {
    let steps = [turn("0", &["f1", "f2"]), begun("0.0"), begun("0.1")];

    assert_eq!(decide(&steps, "", &Limits { tool_calls: 2, ..limits() }), tools(&[(0, "f1"), (1, "f2")]));
}

#[test]
fn an_agent_decides_by_its_own_steps() {
    let steps = [turn("0", &["f"]), begun("0.0"), turn("0.0.0", &["f3"]), answered("0.0.0.0")];

    assert_eq!(decide(&steps[..2], "0.0", &limits()), Next::CallModel);
    assert_eq!(decide(&steps[..3], "0.0", &limits()), tools(&[(0, "f3")]));
    assert_eq!(decide(&steps, "0.0", &limits()), Next::CallModel);
}

#[test]
fn each_limit_ends_the_row_before_the_next_call() {
    // Two turns, two tools, twenty tokens, twelve of them of answers, twenty bytes, and four seconds: the tools of a
    // turn run side by side.
    let steps = [turn("0", &["f1", "f2"]), answered("0.0"), answered("0.1"), turn("1", &["f3"])];
    let after = [&steps[..], &[answered("1.0")]].concat();
    let reached = |limit| Next::End(ScopeEnd::Reached(limit));
    let is_reached = |limits: Limits, limit: Limit| {
        assert_eq!(decide(&after, "", &limits), reached(limit));
    };

    is_reached(Limits { iterations: 2, ..limits() }, Limit::Iterations);
    is_reached(Limits { tokens: Some(20), ..limits() }, Limit::Tokens);
    is_reached(Limits { output_tokens: Some(27), ..limits() }, Limit::OutputTokens);
    is_reached(Limits { tool_output_bytes: 29, ..limits() }, Limit::ToolOutput);
    is_reached(Limits { time: Duration::from_secs(4), ..limits() }, Limit::Time);
    assert_eq!(decide(&steps, "", &Limits { tool_calls: 2, ..limits() }), reached(Limit::ToolCalls));

    let enough = Limits {
        iterations: 3,
        tool_calls: 3,
        tokens: Some(21),
        output_tokens: Some(28),
        tool_output_bytes: 30,
        time: Duration::from_millis(4_001),
        ..limits()
    };
    assert_eq!(decide(&steps, "", &enough), tools(&[(0, "f3")]));
    assert_eq!(decide(&after, "", &enough), Next::CallModel);
}

#[test]
fn an_answer_without_the_form_it_must_have_is_asked_for_again_and_then_given_up() {
    let decide = |steps: &[Step]| {
        let check = |turn: &Turn| if turn.text() == "4" { Ok(()) } else { Err("no".to_owned()) };
        let rules = Rules { limits: &limits(), served: &|_| Served::Here, check: &check, corrections: 2 };
        decide_next(steps, &StepPath::root(), &rules)
    };
    let steps = [turn("0", &["f"]), answered("0.0"), turn("1", &[]), turn("2", &[]), turn("3", &[])];

    assert_eq!(decide(&steps[..3]), Next::CallModel);
    assert_eq!(decide(&steps[..4]), Next::CallModel);
    assert_eq!(decide(&steps), Next::End(ScopeEnd::Invalid("no".to_owned())));
    assert_eq!(decide(&[&steps[..4], &[turn("4", &[])]].concat()), Next::End(ScopeEnd::Completed));
}

//! Chat completions, as they should be and as some servers send them.

use serde_json::{Value, json};

use super::*;
use crate::domain::usage::Usage;
use crate::upstream::dialect::chat::request;

fn ids() -> ItemIds {
    ItemIds::new("1".to_owned())
}

/// The turn of an answer with one choice.
fn turn_of(choice: &str) -> Result<Turn, BadAnswer> {
    read(&format!(r#"{{"model":"m","created":7,"choices":[{choice}]}}"#))
}

fn read(answer: &str) -> Result<Turn, BadAnswer> {
    turn(answer.as_bytes(), &ids(), &HashSet::new())
}

fn output_of(message: &str) -> Value {
    output(&turn_of(&format!(r#"{{"message":{message},"finish_reason":"stop"}}"#)).expect("an answer"))
}

fn output(turn: &Turn) -> Value {
    serde_json::to_value(&turn.output).expect("items are JSON")
}

fn text(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn message(index: usize, content: &Value) -> Value {
    let id = format!("msg_1_{index}");
    json!({ "id": id, "type": "message", "status": "completed", "role": "assistant", "content": content })
}

fn call(index: usize, call_id: &str, arguments: &str) -> Value {
    json!({ "id": format!("fc_1_{index}"), "type": "function_call", "call_id": call_id, "name": "f",
            "arguments": arguments, "status": "completed" })
}

#[test]
fn text_is_a_message() {
    let turn = turn_of(r#"{"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}"#).expect("an answer");

    assert_eq!((turn.model.as_str(), turn.created_at), ("m", 7));
    assert!(matches!(turn.end, TurnEnd::Completed) && turn.usage.is_none());
    assert_eq!(output(&turn), json!([message(0, &json!([text("hi")]))]));
}

#[test]
fn content_may_come_in_parts_or_be_a_refusal() {
    let refusal = json!({ "type": "refusal", "refusal": "no" });
    for (answer, content) in [
        (r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#, json!([text("ab")])),
        (r#"{"content":null,"refusal":"no"}"#, json!([refusal])),
        (r#"{"content":"a","refusal":"no","tool_calls":null}"#, json!([text("a"), refusal])),
        (r#"{"content":[{"type":"refusal","refusal":"no"}]}"#, json!([refusal])),
    ] {
        assert_eq!(output_of(answer), json!([message(0, &content)]), "{answer}");
    }
}

#[test]
fn an_answer_without_text_and_calls_is_an_empty_message() {
    for answer in ["{}", r#"{"content":null}"#, r#"{"content":"","tool_calls":[],"refusal":null}"#] {
        assert_eq!(output_of(answer), json!([message(0, &json!([text("")]))]), "{answer}");
    }
}

#[test]
fn reasoning_is_read_under_both_its_names() {
    let reasoning = json!({ "id": "rs_1_0", "type": "reasoning", "summary": [], "status": "completed",
                            "content": [{ "type": "reasoning_text", "text": "so" }] });
    for answer in [
        r#"{"content":"hi","reasoning_content":"so"}"#,
        r#"{"content":"hi","reasoning":"so"}"#,
        r#"{"content":"hi","reasoning_content":"","reasoning":"so"}"#,
        r#"{"content":"hi","reasoning_content":"so","reasoning":"so"}"#,
    ] {
        assert_eq!(output_of(answer), json!([reasoning, message(1, &json!([text("hi")]))]), "{answer}");
    }
}

#[test]
fn parallel_calls_keep_their_order_and_ids() {
    let answer = r#"{"content":"look","tool_calls":[
        {"id":"b","type":"function","function":{"name":"f","arguments":"{\"n\": 1.0}"}},
        {"id":"a","type":"function","function":{"name":"f","arguments":""}}]}"#;

    assert_eq!(
        output_of(answer),
        json!([message(0, &json!([text("look")])), call(1, "b", "{\"n\": 1.0}"), call(2, "a", "")])
    );
}

#[test]
fn calls_without_an_id_of_their_own_get_one() {
    let answer = r#"{"tool_calls":[
        {"id":"a","function":{"name":"f","arguments":"{}"}},
        {"id":"a","function":{"name":"f","arguments":"{}"}},
        {"id":"","function":{"name":"f","arguments":"{}"}},
        {"function":{"name":"f","arguments":"{}"}}]}"#;

    assert_eq!(
        output_of(answer),
        json!([call(0, "a", "{}"), call(1, "call_1_1", "{}"), call(2, "call_1_2", "{}"), call(3, "call_1_3", "{}")])
    );
    assert_eq!(
        output_of(r#"{"content":null,"function_call":{"name":"f","arguments":"{}"}}"#),
        json!([call(0, "call_1_0", "{}")])
    );
}

#[test]
fn calls_with_the_id_of_an_earlier_turn_get_one_of_their_own() {
    let answer = r#"{"choices":[{"message":{"tool_calls":[
        {"id":"functions.f:0","function":{"name":"f","arguments":"{}"}},
        {"id":"functions.f:1","function":{"name":"f","arguments":"{}"}}]}}]}"#;
    let used = HashSet::from(["functions.f:0".to_owned()]);

    let turn = turn(answer.as_bytes(), &ids(), &used).expect("an answer");

    assert_eq!(output(&turn), json!([call(0, "call_1_0", "{}"), call(1, "functions.f:1", "{}")]));
}

#[test]
fn arguments_become_a_string_whatever_they_came_as() {
    for (arguments, expected) in [
        (r#","arguments":{"b":1.0,"a": 12345678901234567890}"#, r#"{"b":1.0,"a": 12345678901234567890}"#),
        (r#","arguments":null"#, "{}"),
        ("", "{}"),
    ] {
        let answer = format!(r#"{{"tool_calls":[{{"id":"a","function":{{"name":"f"{arguments}}}}}]}}"#);

        assert_eq!(output_of(&answer), json!([call(0, "a", expected)]));
    }
}

#[test]
fn log_probabilities_always_have_bytes() {
    let turn = turn_of(
        r#"{"message":{"content":"ä"},"logprobs":{"content":[
            {"token":"ä","logprob":-0.10,"bytes":null,"top_logprobs":[{"token":"b","logprob":-2,"bytes":[98]}]},
            {"token":"c","logprob":-1e-7}]}}"#,
    )
    .expect("an answer");

    let item = turn.output[0].get();
    assert!(
        item.contains(concat!(
            r#""logprobs":[{"token":"ä","bytes":[195,164],"logprob":-0.10,"#,
            r#""top_logprobs":[{"token":"b","bytes":[98],"logprob":-2}]},"#,
            r#"{"token":"c","bytes":[99],"logprob":-1e-7,"top_logprobs":[]}]"#
        )),
        "{item}"
    );
}

#[test]
fn what_was_cut_off_is_the_last_item() {
    let call = r#""tool_calls":[{"id":"a","function":{"name":"f"}},{"id":"b","function":{"name":"f"}}]"#;
    for (message, reason, details, statuses) in [
        (r#""content":"a""#, "length", "max_output_tokens", json!(["incomplete"])),
        (r#""reasoning":"so""#, "length", "max_output_tokens", json!(["completed", "incomplete"])),
        (r#""content":"a""#, "content_filter", "content_filter", json!(["incomplete"])),
        (call, "length", "max_output_tokens", json!(["completed", "incomplete"])),
        (
            &format!(r#""content":"a",{call}"#),
            "length",
            "max_output_tokens",
            json!(["completed", "completed", "incomplete"]),
        ),
    ] {
        let turn = turn_of(&format!(r#"{{"message":{{{message}}},"finish_reason":"{reason}"}}"#)).expect("an answer");

        let TurnEnd::Incomplete(why) = &turn.end else { panic!("{message} is incomplete") };
        assert_eq!(why.get(), format!(r#"{{"reason":"{details}"}}"#));
        let items = output(&turn);
        let found: Vec<_> = items.as_array().expect("an array").iter().map(|item| &item["status"]).collect();
        assert_eq!(json!(found), statuses, "{message}");
    }
}

#[test]
fn any_other_end_is_one() {
    for reason in [r#""stop""#, r#""tool_calls""#, r#""function_call""#, r#""eos""#, "null"] {
        let turn = turn_of(&format!(r#"{{"message":{{}},"finish_reason":{reason}}}"#)).expect("an answer");

        assert!(matches!(turn.end, TurnEnd::Completed), "{reason}");
    }
}

#[test]
fn tokens_are_counted_with_their_details() {
    let answer = r#"{"choices":[{"message":{}}],"created":1.5,"usage":{"prompt_tokens":10,"completion_tokens":5,
        "prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},
        "completion_tokens_details":{"reasoning_tokens":2}}}"#;

    let turn = read(answer).expect("an answer");

    let usage = Usage { input_tokens: 10, cached_tokens: 4, output_tokens: 5, reasoning_tokens: 2, total_tokens: 15 };
    assert_eq!(turn.usage, Some(TokenUsage { usage, cache_write_tokens: 3 }));
    assert_eq!((turn.model.as_str(), turn.created_at), ("", 1));
}

#[test]
fn an_answer_that_is_none_says_what_is_wrong_with_it() {
    for (answer, message) in [
        ("[]", "The upstream's answer is not a JSON object."),
        ("<html>", "The upstream's answer is not a JSON object."),
        ("{}", "The upstream's answer has no choices."),
        (r#"{"choices":[]}"#, "The upstream's answer has no choices."),
        (r#"{"choices":[{"text":"hi"}]}"#, "The upstream's answer has no message."),
        (
            r#"{"choices":[{"message":{"content":[{"type":"thinking"}]}}]}"#,
            "The upstream's answer has a part of type 'thinking'.",
        ),
        (
            r#"{"choices":[{"message":{"audio":{"data":"x"}}}]}"#,
            "The upstream's answer has audio, which a response cannot have.",
        ),
    ] {
        assert_eq!(read(answer).expect_err(answer), BadAnswer::Final(message.to_owned()));
    }
    for (message, start) in [
        (r#"{"content":7}"#, "The upstream's answer has a 'content' that cannot be read: "),
        (r#"{"tool_calls":[{"id":"a"}]}"#, "The upstream's answer has a 'tool_calls' that cannot be read: "),
        (
            r#"{"tool_calls":[{"id":"a","function":{}}]}"#,
            "The upstream's answer has a 'tool_calls' that cannot be read: ",
        ),
    ] {
        let wrong = turn_of(&format!(r#"{{"message":{message}}}"#)).expect_err(message);

        assert!(matches!(&wrong, BadAnswer::Final(wrong) if wrong.starts_with(start)), "{wrong}");
    }
}

#[test]
fn an_answer_that_was_broken_off_may_come_whole_the_next_time() {
    for reason in ["abort", "error"] {
        let broken = turn_of(&format!(r#"{{"message":{{}},"finish_reason":"{reason}"}}"#)).expect_err(reason);

        let message = format!("The upstream broke its answer off: its finish_reason is '{reason}'.");
        assert_eq!(broken, BadAnswer::MayPass(message));
    }
}

#[test]
fn what_a_model_said_goes_back_to_it_as_it_said_it() {
    let said = concat!(
        r#"{"role":"assistant","content":"look","reasoning_content":"so","reasoning":"so","tool_calls":["#,
        r#"{"id":"b","type":"function","function":{"name":"f","arguments":"{\"n\":1.0}"}},"#,
        r#"{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}"#
    );
    let turn = turn_of(&format!(r#"{{"message":{said},"finish_reason":"tool_calls"}}"#)).expect("an answer");
    let outputs = ["a", "b"].map(|id| raw(&json!({ "type": "function_call_output", "call_id": id, "output": id })));
    let mut body = Fields::default();
    body.set("input", &turn.output.into_iter().chain(outputs).collect::<Vec<_>>());

    let chat = request(&body).expect("all of it has a counterpart");

    let messages = chat.raw("messages").expect("there are messages").get();
    let tool = |id| format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"{id}"}}"#);
    assert_eq!(messages, format!("[{said},{},{}]", tool("a"), tool("b")));
}

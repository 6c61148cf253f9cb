//! Responses of upstreams that have the API themselves.

use super::*;

fn read(answer: &str) -> Result<Turn, BadAnswer> {
    turn(answer.as_bytes(), &ItemIds::new("1".to_owned()), &HashSet::new())
}

fn output_of(output: &str) -> String {
    let turn = read(&format!(r#"{{"status":"completed","output":{output}}}"#)).expect("a response");
    serde_json::to_string(&turn.output).expect("items are JSON")
}

#[test]
fn items_stay_as_they_came() {
    let output = concat!(
        r#"[{"type":"reasoning", "id":"rs_9","summary":[],"x":1.0},"#,
        r#"{"type":"function_call","id":"fc_9","call_id":"a","name":"f","arguments":"{}"}]"#
    );

    assert_eq!(output_of(output), output);
}

#[test]
fn items_without_an_id_get_one() {
    assert_eq!(
        output_of(r#"[{"type":"message","x":1.0},{"type":"reasoning","id":""},{"type":"web_search_call","id":null}]"#),
        concat!(
            r#"[{"type":"message","x":1.0,"id":"msg_1_0"},{"type":"reasoning","id":"rs_1_1"},"#,
            r#"{"type":"web_search_call","id":"item_1_2"}]"#
        )
    );
}

#[test]
fn calls_without_an_id_of_their_own_get_one() {
    let call = |id: &str| format!(r#"{{"type":"function_call","id":"fc_9","call_id":"{id}","arguments":""}}"#);
    let calls = |ids: [&str; 3]| format!("[{}]", ids.map(call).join(","));

    assert_eq!(output_of(&calls(["a", "a", ""])), calls(["a", "call_1_1", "call_1_2"]));
}

#[test]
fn calls_with_the_id_of_an_earlier_turn_get_one_of_their_own() {
    let answer = r#"{"output":[{"type":"function_call","id":"fc_9","call_id":"functions.f:0","arguments":"{}"}]}"#;
    let used = HashSet::from(["functions.f:0".to_owned()]);

    let turn = turn(answer.as_bytes(), &ItemIds::new("1".to_owned()), &used).expect("a response");

    assert_eq!(turn.calls()[0].call_id, "call_1_0");
}

#[test]
fn arguments_become_a_string_whatever_they_came_as() {
    for (arguments, expected) in [
        (r#","arguments":{"b":1.0,"a": 12345678901234567890}"#, r#"{"b":1.0,"a": 12345678901234567890}"#),
        (r#","arguments":null"#, "{}"),
        ("", "{}"),
        (r#","arguments":"{\"n\": 1}""#, r#"{"n": 1}"#),
    ] {
        let call = format!(r#"{{"type":"function_call","id":"fc_9","call_id":"a","name":"f"{arguments}}}"#);

        let turn = read(&format!(r#"{{"output":[{call}]}}"#)).expect("a response");

        let calls = turn.calls();
        assert_eq!(calls.len(), 1, "{call}");
        assert_eq!(calls[0].arguments, expected);
    }
}

#[test]
fn the_model_the_time_and_the_tokens_are_read() {
    let turn = read(
        r#"{"status":"completed","model":"m","created_at":7.5,"output":[],
            "usage":{"input_tokens":3,"output_tokens":2,"input_tokens_details":{"cache_write_tokens":1}}}"#,
    )
    .expect("a response");

    assert_eq!((turn.model.as_str(), turn.created_at), ("m", 7));
    let tokens = turn.usage.expect("there is usage");
    assert_eq!((tokens.usage.input_tokens, tokens.usage.total_tokens, tokens.cache_write_tokens), (3, 5, 1));

    let bare = read(r#"{"output":[],"usage":null}"#).expect("a response");
    assert!(bare.usage.is_none() && bare.created_at == 0 && matches!(bare.end, TurnEnd::Completed));
}

#[test]
fn a_response_ends_as_its_status_says() {
    for (answer, why) in [
        (
            r#"{"status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[]}"#,
            r#"{"reason":"content_filter"}"#,
        ),
        (r#"{"status":"incomplete","output":[]}"#, r#"{"reason":null}"#),
    ] {
        let TurnEnd::Incomplete(found) = read(answer).expect(answer).end else { panic!("{answer} is incomplete") };
        assert_eq!(found.get(), why);
    }
    for (answer, why) in [
        (r#"{"status":"failed","error":{"code":"x","message":"y"}}"#, r#"{"code":"x","message":"y"}"#),
        (
            r#"{"status":"failed","error":null,"output":[]}"#,
            r#"{"code":"server_error","message":"The upstream does not say why the response failed."}"#,
        ),
    ] {
        let TurnEnd::Failed(found) = read(answer).expect(answer).end else { panic!("{answer} failed") };
        assert_eq!(found.get(), why);
    }
}

#[test]
fn an_answer_that_is_none_says_what_is_wrong_with_it() {
    for (answer, message) in [
        ("7", "The upstream's answer is not a JSON object."),
        ("{}", "The upstream's answer has no output."),
        (r#"{"status":7}"#, "The upstream's answer has a 'status' that is not a string."),
        (r#"{"status":"completed","output":{}}"#, "The upstream's answer has an 'output' that is not an array."),
        (r#"{"status":"completed","output":[7]}"#, "The upstream's answer has an 'output[0]' that is not an object."),
        (r#"{"status":"paused","output":[]}"#, "The upstream's answer is not final: its status is 'paused'."),
    ] {
        assert_eq!(read(answer).expect_err(answer), BadAnswer::Final(message.to_owned()));
    }
}

#[test]
fn an_answer_that_an_upstream_gave_up_may_come_whole_the_next_time() {
    for (answer, message) in [
        (r#"{"status":"queued","output":[]}"#, "The upstream's answer is not final: its status is 'queued'."),
        (r#"{"status":"in_progress"}"#, "The upstream's answer is not final: its status is 'in_progress'."),
        (r#"{"status":"cancelled"}"#, "The upstream's answer is not final: its status is 'cancelled'."),
        (
            r#"{"status":"failed","error":{"code":"server_error","message":"The engine died."}}"#,
            "The upstream's response failed with 'server_error': The engine died.",
        ),
        (
            r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"Slow down."},"output":[]}"#,
            "The upstream's response failed with 'rate_limit_exceeded': Slow down.",
        ),
    ] {
        assert_eq!(read(answer).expect_err(answer), BadAnswer::MayPass(message.to_owned()));
    }
}

/// What a server is sent for a request of row `1`.
fn sent(json: &str) -> Fields {
    request(&Fields::read(json.as_bytes()).expect("an object"), &ItemIds::new("1_0".to_owned()))
}

fn ids(request: &Fields) -> Vec<String> {
    let input: Vec<Fields> = request.get("input").expect("a list").expect("it is there");
    input.iter().map(|item| item.get("id").expect("a text").unwrap_or_default()).collect()
}

#[test]
fn what_an_upstream_is_told_not_to_keep_is_not_referred_to() {
    let sent = |store: &str| {
        let items = concat!(
            r#"[{"type":"reasoning","id":"rs_9","summary":[]},"#,
            r#"{"type":"reasoning","id":"rs_2","summary":[],"encrypted_content":"x"},"#,
            r#"{"type":"reasoning","id":"rs_3","summary":[],"content":[{"type":"reasoning_text","text":"so"}]},"#,
            r#"{"type":"function_call","id":"fc_9","call_id":"c","name":"f","arguments":"{}"},"#,
            r#"{"role":"user","content":"Hi"}]"#
        );
        ids(&sent(&format!(r#"{{"model":"m","store":{store},"input":{items}}}"#)))
    };

    assert_eq!(sent("true"), ["rs_9", "rs_2", "rs_3", "fc_9", ""]);
    assert_eq!(sent("false"), ["", "", "", ""]);
}

#[test]
fn an_item_that_was_made_here_is_not_referred_to() {
    let input = concat!(
        r#"[{"type":"reasoning","id":"rs_1_0_0","summary":[],"content":[{"type":"reasoning_text","text":"so"}]},"#,
        r#"{"type":"function_call","id":"fc_9","call_id":"call_1_0_1","name":"f","arguments":"{}"},"#,
        r#"{"type":"function_call_output","call_id":"call_1_0_1","output":"3"}]"#
    );

    let sent = sent(&format!(r#"{{"model":"m","input":{input}}}"#));

    assert_eq!(ids(&sent), ["", "fc_9", ""]);
    assert!(sent.raw("input").expect("it is there").get().contains("call_1_0_1"), "calls keep theirs");
}

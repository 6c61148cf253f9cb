//! Streams as servers send them, and the objects that they amount to.

use super::*;

/// What a stream amounts to, and whether its end had to be told by the end of the connection.
fn folded(endpoint: Endpoint, events: &[&str]) -> Option<Folded> {
    let mut fold = Fold::new(endpoint);
    for event in events {
        if let Some(folded) = fold.add(event.as_bytes(), event.contains("overloaded")) {
            return Some(folded);
        }
    }
    fold.at_end_of_connection()
}

/// A chunk with these choices.
fn chunk(choices: &Value) -> String {
    json!({ "id": "c", "object": "chunk", "created": 1, "model": "m", "choices": choices }).to_string()
}

fn texts(events: &[String]) -> Vec<&str> {
    events.iter().map(String::as_str).collect()
}

fn whole(folded: Option<Folded>) -> (u16, Value) {
    match folded {
        Some(Folded::Whole(status, body)) => (status, serde_json::from_slice(&body).expect("JSON")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_chat_completion_is_put_together() {
    let logprobs = |token: &str| json!({ "content": [{ "token": token, "logprob": -0.5 }] });
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
    let delta = |delta: Value, logprobs: Value, finish_reason: Value| {
        let index = 0;
        json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason })
    };
    let thinks = json!({ "index": 1, "delta": { "role": "assistant", "reasoning_content": "hm" } });
    let events = [
        chunk(&json!([delta(json!({ "role": "assistant", "content": "" }), Value::Null, Value::Null)])),
        chunk(&json!([delta(json!({ "content": "Hel" }), logprobs("Hel"), Value::Null)])),
        chunk(&json!([thinks, delta(json!({ "content": "lo" }), logprobs("lo"), json!("stop"))])),
        chunk(&json!([{ "index": 1, "delta": {}, "finish_reason": "length", "stop_reason": 7 }])),
        json!({ "id": "c", "choices": [], "usage": usage }).to_string(),
        "[DONE]".to_owned(),
    ];
    let events = texts(&events);
    let expected = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "usage": usage,
        "choices": [
            {
                "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "Hello" },
                "logprobs": { "content": [{ "token": "Hel", "logprob": -0.5 }, { "token": "lo", "logprob": -0.5 }] },
            },
            {
                "index": 1, "finish_reason": "length", "stop_reason": 7, "logprobs": null,
                "message": { "role": "assistant", "content": null, "reasoning_content": "hm" },
            },
        ],
    });
    assert_eq!(whole(folded(Endpoint::ChatCompletions, &events)), (200, expected.clone()));
    assert_eq!(folded(Endpoint::ChatCompletions, &events[..3]), None, "one choice has not ended");
    let without_done = whole(folded(Endpoint::ChatCompletions, &events[..5]));
    assert_eq!(without_done, (200, expected), "some servers only close the connection");
}

#[test]
fn the_calls_of_tools_are_put_together_by_their_index() {
    let part = |index: u64, id: &str, name: &str, arguments: &str| {
        let function = json!({ "name": name, "arguments": arguments });
        json!({ "index": index, "id": id, "type": "function", "function": function })
    };
    let calls = |calls: Value| chunk(&json!([{ "index": 0, "delta": { "tool_calls": calls } }]));
    let events = [
        calls(json!([part(0, "call_1", "add", "")])),
        // Some servers repeat the names.
        calls(json!([part(0, "call_1", "add", "{\"a\"")])),
        calls(json!([part(1, "call_2", "mul", "{}"), { "index": 0, "function": { "arguments": ":1}" } }])),
        chunk(&json!([{ "index": 0, "delta": {}, "finish_reason": "tool_calls" }])),
        "[DONE]".to_owned(),
    ];
    let events = texts(&events);
    let (_, answer) = whole(folded(Endpoint::ChatCompletions, &events));

    let call = |id: &str, name: &str, arguments: &str| {
        let function = json!({ "name": name, "arguments": arguments });
        json!({ "id": id, "type": "function", "function": function })
    };
    let calls = json!([call("call_1", "add", "{\"a\":1}"), call("call_2", "mul", "{}")]);
    assert_eq!(answer["choices"][0]["message"], json!({ "role": "assistant", "content": null, "tool_calls": calls }));
}

#[test]
fn calls_of_tools_are_told_apart_however_they_are_numbered() {
    let two = json!([["a", "f", "{}"], ["b", "g", "{}"]]);
    let cases = [
        (
            "one number and two ids",
            r#"[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]
            [{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}]"#,
            &two,
        ),
        (
            "not in their order",
            r#"[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]
            [{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]"#,
            &two,
        ),
        (
            "no number",
            r#"[{"id":"a","function":{"name":"f","arguments":"{"}}]
            [{"function":{"arguments":"}"}}]
            [{"id":"b","function":{"name":"g","arguments":"{"}}]
            [{"id":"b","function":{"arguments":"}"}}]"#,
            &two,
        ),
        (
            "neither number nor id",
            r#"[{"function":{"name":"f","arguments":"{"}}]
            [{"function":{"name":"","arguments":"}"}}, {"function":{"name":"g","arguments":"{}"}}]"#,
            &json!([[null, "f", "{}"], [null, "g", "{}"]]),
        ),
    ];
    for (case, deltas, expected) in cases {
        let part = |calls: &str| {
            let calls: Value = serde_json::from_str(calls).expect("JSON");
            chunk(&json!([{ "index": 0, "delta": { "tool_calls": calls }, "finish_reason": "tool_calls" }]))
        };
        let events: Vec<String> = deltas.lines().map(part).chain(["[DONE]".to_owned()]).collect();

        let (_, answer) = whole(folded(Endpoint::ChatCompletions, &texts(&events)));

        let calls = answer["choices"][0]["message"]["tool_calls"].as_array().expect("a list");
        let told = |call: &Value| json!([call["id"], call["function"]["name"], call["function"]["arguments"]]);
        assert_eq!(&calls.iter().map(told).collect::<Value>(), expected, "{case}");
    }
}

#[test]
fn halves_of_a_surrogate_pair_in_two_events_are_replaced() {
    let part = |half: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"\u{half}"}}}}]}}"#);
    let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

    let (_, answer) = whole(folded(Endpoint::ChatCompletions, &[&*part("d83d"), &*part("de00"), end, "[DONE]"]));

    assert_eq!(answer["choices"][0]["message"]["content"], "\u{fffd}\u{fffd}");
}

#[test]
fn a_completion_is_put_together() {
    let part = |text: &str, offset: u64, finish_reason: Value| {
        let logprobs = json!({ "tokens": [text], "text_offset": [offset] });
        let choice = json!({ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_reason });
        json!({ "id": "c", "choices": [choice], "usage": { "total_tokens": 5 } }).to_string()
    };
    let events = [part("Hel", 0, Value::Null), part("lo", 3, json!("stop")), "[DONE]".to_owned()];
    let events = texts(&events);
    let expected = json!({
        "id": "c", "object": "text_completion", "usage": { "total_tokens": 5 },
        "choices": [{
            "index": 0, "text": "Hello", "finish_reason": "stop",
            "logprobs": { "tokens": ["Hel", "lo"], "text_offset": [0, 3] },
        }],
    });
    assert_eq!(whole(folded(Endpoint::Completions, &events)), (200, expected));
}

#[test]
fn a_response_is_that_of_the_last_event() {
    let begun = r#"{"type":"response.created","response":{"id":"r","status":"in_progress"}}"#;
    let delta = r#"{"type":"response.output_text.delta","delta":"Hi"}"#;
    let response = r#"{"id":"r","status":"completed","n":1.10}"#;
    let last = format!(r#"{{"type":"response.completed","response":{response}}}"#);

    assert_eq!(
        folded(Endpoint::Responses, &[begun, delta, &last]),
        Some(Folded::Whole(200, response.to_owned().into())),
        "byte for byte"
    );
    assert_eq!(folded(Endpoint::Responses, &[begun, delta]), None);
    let error = r#"{"type":"error","code":"server_error","message":"no"}"#;
    assert_eq!(whole(folded(Endpoint::Responses, &[begun, error])).0, 500);
}

#[test]
fn an_error_in_the_middle_is_the_answer() {
    let chunk = r#"{"id":"c","choices":[{"index":0,"delta":{"content":"Hel"}}]}"#;
    let cases = [
        (r#"{"error":{"message":"no","code":400}}"#, 400),
        (r#"{"error":{"message":"no","code":"server_error"}}"#, 502),
        (r#"{"error":{"message":"no","code":7}}"#, 502),
        (r#"{"error":"no"}"#, 502),
        (r#"{"error":{"message":"no","code":"429"}}"#, 429),
        (r#"{"object":"error","message":"no","code":400}"#, 400),
        (r#"{"message":"no, overloaded","code":503}"#, 503),
    ];
    for (event, status) in cases {
        let (found, body) = whole(folded(Endpoint::ChatCompletions, &[chunk, event]));
        assert_eq!((found, body.to_string().contains("no")), (status, true), "{event}");
    }
    let usage = r#"{"id":"c","choices":[],"usage":{"total_tokens":5}}"#;
    for wrong in
        [&[""][..], &["x"], &["[1]"], &[r#"{"choices":7}"#], &["[DONE]"], &[chunk, "[DONE]"], &[usage, "[DONE]"]]
    {
        let found = folded(Endpoint::ChatCompletions, wrong);
        assert!(matches!(found, Some(Folded::Unreadable(_))), "{wrong:?}: {found:?}");
    }
}

//! Conversations with a script, through either API.

use axum::Router;
use serde_json::{Value, json};

use super::super::{Simulator, SimulatorArgs};
use super::{CHAT, instant, json_body, post};

const RESPONSES: &str = "/v1/responses";

/// What a client sends again and again, with what came back added to it.
struct Conversation {
    router: Router,
    path: &'static str,
    entries: Vec<Value>,
}

impl Conversation {
    fn new(path: &'static str, script: &Value) -> Self {
        let router = Simulator::new(instant()).router();
        Self { router, path, entries: vec![user(&format!("simulate:{script}"))] }
    }

    fn is_chat(&self) -> bool {
        self.path == CHAT
    }

    fn body(&self) -> String {
        let name = if self.is_chat() { "messages" } else { "input" };
        json!({ "model": "m", name: self.entries }).to_string()
    }

    async fn ask(&self) -> (u16, Value) {
        let response = post(&self.router, self.path, Some("key"), self.body()).await;
        (response.status().as_u16(), json_body(response).await)
    }

    /// Asks, goes on from the answer, and gives it.
    async fn answer(&mut self) -> Value {
        let (status, answer) = self.ask().await;
        assert_eq!(status, 200, "{answer}");
        if self.is_chat() {
            self.entries.push(answer["choices"][0]["message"].clone());
        } else {
            self.entries.extend(answer["output"].as_array().unwrap().iter().cloned());
        }
        answer
    }

    /// The calls in an answer: id, name, arguments.
    fn calls(&self, answer: &Value) -> Vec<[String; 3]> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        if self.is_chat() {
            assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
            let calls = answer["choices"][0]["message"]["tool_calls"].as_array().unwrap();
            let call =
                |call: &Value| [&call["id"], &call["function"]["name"], &call["function"]["arguments"]].map(text);
            return calls.iter().map(call).collect();
        }
        let calls = answer["output"].as_array().unwrap().iter().filter(|item| item["type"] == "function_call");
        calls.map(|call| [&call["call_id"], &call["name"], &call["arguments"]].map(text)).collect()
    }

    fn text(&self, answer: &Value) -> String {
        let pointer = if self.is_chat() { "/choices/0/message/content" } else { "/output/0/content/0/text" };
        answer.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn output(&mut self, call_id: &str, text: &str) {
        self.entries.push(if self.is_chat() {
            json!({ "role": "tool", "tool_call_id": call_id, "content": text })
        } else {
            json!({ "type": "function_call_output", "call_id": call_id, "output": text })
        });
    }
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

#[tokio::test]
async fn the_turns_of_a_script_come_one_after_the_other_and_then_its_outputs() {
    let script = json!({ "turns": [
        [{ "name": "add", "arguments": { "a": 1 } }, { "name": "mul", "arguments": "{ }", "id": "call_own" }],
        [{ "name": "add" }],
    ]});
    for path in [CHAT, RESPONSES] {
        let mut conversation = Conversation::new(path, &script);

        let first = conversation.answer().await;
        let [[add, name, arguments], [own, mul, text]] = conversation.calls(&first).try_into().unwrap();
        assert_eq!([name.as_str(), &arguments, &own, &mul, &text], ["add", r#"{"a":1}"#, "call_own", "mul", "{ }"]);
        assert!(add.len() == 29 && add.starts_with("call_"), "{add}");
        conversation.output("call_own", "second");
        conversation.output(&add, "first");
        let second = conversation.answer().await;
        let [[id, _, arguments]] = conversation.calls(&second).try_into().unwrap();
        assert_eq!(arguments, "{}");
        assert_ne!(id, add);
        conversation.output(&id, "third");

        let last = conversation.answer().await;

        assert_eq!(conversation.text(&last), "first | second | third", "{path}");
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_same_calls() {
    for path in [CHAT, RESPONSES] {
        let conversation = Conversation::new(path, &json!({ "turns": [[{ "name": "add" }]] }));

        let (first, second) = (conversation.ask().await.1, conversation.ask().await.1);

        assert_ne!(first, second, "ids of answers are drawn anew");
        assert_eq!(conversation.calls(&first), conversation.calls(&second));
    }
}

#[tokio::test]
async fn an_endless_script_calls_whatever_it_is_told() {
    let script = json!({ "turns": [[{ "name": "a" }], [{ "name": "b" }]], "endless": true });
    for path in [CHAT, RESPONSES] {
        let mut conversation = Conversation::new(path, &script);
        let mut names = String::new();
        for _ in 0..4 {
            let answer = conversation.answer().await;
            let [[id, name, _]] = conversation.calls(&answer).try_into().unwrap();
            names += &name;
            conversation.output(&id, "");
        }
        assert_eq!(names, "abbb");
    }
}

#[tokio::test]
async fn a_complaint_of_the_user_gets_the_next_text_and_a_new_script_starts_anew() {
    for path in [CHAT, RESPONSES] {
        let mut conversation = Conversation::new(path, &json!({ "answers": ["one", "two"] }));
        let mut texts = Vec::new();
        for _ in 0..3 {
            let answer = conversation.answer().await;
            texts.push(conversation.text(&answer));
            conversation.entries.push(user("not good enough"));
        }
        assert_eq!(texts, ["one", "two", "two"]);

        conversation.entries.push(user(r#"simulate:{"answers": ["other"]}"#));
        let answer = conversation.answer().await;

        assert_eq!(conversation.text(&answer), "other");
    }
}

#[tokio::test]
async fn reasoning_and_refusals_have_their_places_and_are_counted() {
    let script = json!({ "reasoning": "let me see", "refuse": "I will not" });
    let chat = Conversation::new(CHAT, &script).answer().await;
    let message = &chat["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], "let me see");
    assert_eq!((&message["content"], &message["refusal"]), (&json!(null), &json!("I will not")));
    assert_eq!(chat["usage"]["completion_tokens"], 6);
    assert_eq!(chat["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);

    let response = Conversation::new(RESPONSES, &script).answer().await;
    assert_eq!(response["output"][0]["content"][0], json!({ "type": "reasoning_text", "text": "let me see" }));
    assert_eq!(response["output"][1]["content"][0], json!({ "type": "refusal", "refusal": "I will not" }));
    assert_eq!(response["usage"]["output_tokens"], 6);
    assert_eq!(response["usage"]["output_tokens_details"]["reasoning_tokens"], 3);
}

#[tokio::test]
async fn a_script_fails_where_it_says_so() {
    let script = json!({ "turns": [[{ "name": "a" }]], "fail": { "1": 429 }, "fail_once": { "0": 503 } });
    for path in [CHAT, RESPONSES] {
        let mut conversation = Conversation::new(path, &script);
        assert_eq!(conversation.ask().await.0, 503);
        let answer = conversation.answer().await;
        let [[id, ..]] = conversation.calls(&answer).try_into().unwrap();
        conversation.output(&id, "");

        assert_eq!(conversation.ask().await.0, 429);
        assert_eq!(conversation.ask().await.0, 429);
    }
}

#[tokio::test]
async fn calls_and_outputs_that_do_not_belong_together_are_refused() {
    let script = json!({ "turns": [[{ "name": "a", "id": "call_a" }]], "answer": "done" });
    for path in [CHAT, RESPONSES] {
        let mut conversation = Conversation::new(path, &script);
        conversation.answer().await;
        let (status, refusal) = conversation.ask().await;
        assert_eq!((status, &refusal["error"]["type"]), (400, &json!("invalid_request_error")));
        assert!(refusal["error"]["message"].as_str().unwrap().contains("call_a"), "{refusal}");

        conversation.output("unknown", "");
        let (status, refusal) = conversation.ask().await;

        assert_eq!(status, 400);
        assert!(refusal["error"]["message"].as_str().unwrap().contains("unknown"), "{refusal}");
    }
}

#[tokio::test]
async fn a_conversation_with_arguments_that_are_no_object_is_refused() {
    for path in [CHAT, RESPONSES] {
        for arguments in ["not JSON", "", "7", "[]", "null"] {
            let script = json!({ "turns": [[{ "name": "a", "id": "call_a", "arguments": arguments }]] });
            let mut conversation = Conversation::new(path, &script);
            let answer = conversation.answer().await;
            assert_eq!(conversation.calls(&answer)[0][2], arguments, "the script's own call is free");
            conversation.output("call_a", "");

            let (status, refusal) = conversation.ask().await;

            assert_eq!((status, &refusal["error"]["type"]), (400, &json!("invalid_request_error")), "{arguments}");
            assert!(refusal["error"]["message"].as_str().unwrap().contains("call_a"), "{refusal}");
        }
    }
}

#[tokio::test]
async fn every_count_of_a_scripted_answer_is_other_than_zero() {
    for script in [json!({ "turns": [[{ "name": "a" }]] }), json!({ "answer": "" }), json!({ "reasoning": "so" })] {
        let chat = Conversation::new(CHAT, &script).answer().await;
        let response = Conversation::new(RESPONSES, &script).answer().await;

        let (chat, response) = (&chat["usage"], &response["usage"]);
        assert_eq!(chat["prompt_tokens_details"]["cached_tokens"], 1);
        assert_eq!(response["input_tokens_details"], json!({ "cached_tokens": 1, "cache_write_tokens": 2 }));
        let expected = if script["reasoning"] == "so" { 1 } else { 3 };
        for (input, output, details, total) in [
            ("prompt_tokens", "completion_tokens", "completion_tokens_details", chat),
            ("input_tokens", "output_tokens", "output_tokens_details", response),
        ]
        .map(|(input, output, details, usage)| (&usage[input], &usage[output], &usage[details], &usage["total_tokens"]))
        {
            assert_eq!(details["reasoning_tokens"], expected);
            assert!(output.as_u64() >= Some(expected) && input.as_u64() >= Some(3), "{input} {output}");
            assert_eq!(input.as_u64().unwrap() + output.as_u64().unwrap(), total.as_u64().unwrap());
        }
    }
}

#[tokio::test]
async fn a_script_is_found_in_any_form_of_a_message_and_nowhere_else() {
    let router = Simulator::new(instant()).router();
    let parts = |kind: &str| json!([{ "role": "user", "content": [{ "type": kind, "text": "simulate:{}" }] }]);
    let messages = |role: &str, text: &str| json!([{ "role": role, "content": text }]);
    let cases = [
        (CHAT, "messages", parts("text"), true),
        (RESPONSES, "input", json!("simulate:{}"), true),
        (RESPONSES, "input", parts("input_text"), true),
        (CHAT, "messages", messages("system", "simulate:{}"), false),
        (CHAT, "messages", messages("user", "what does simulate:{} do?"), false),
        (RESPONSES, "input", json!("what does simulate:{} do?"), false),
    ];
    for (path, name, value, is_scripted) in cases {
        let body = json!({ "model": "m", name: value }).to_string();
        let answer = json_body(post(&router, path, None, body.clone()).await).await;

        let text = answer.pointer("/choices/0/message/content").or(answer.pointer("/output/0/content/0/text"));
        assert_eq!(text.unwrap() == "", is_scripted, "{body}");
    }
    let unreadable = json!({ "model": "m", "input": r#"simulate:{"turn": []}"# }).to_string();
    assert_eq!(post(&router, RESPONSES, None, unreadable).await.status(), 400);
}

#[tokio::test]
async fn a_server_without_the_responses_api_has_no_such_url() {
    let simulator = Simulator::new(SimulatorArgs { no_responses: true, ..instant() });
    let router = simulator.router();

    let response = post(&router, RESPONSES, None, "{}").await;

    assert_eq!(response.status(), 404);
    assert_eq!(json_body(response).await, json!({ "detail": "Not Found" }));
    assert_eq!(post(&router, CHAT, None, super::chat("m")).await.status(), 200);
    assert_eq!(simulator.stats().requests_by_path[RESPONSES], 1);
}

//! Answers that must match a schema, and are asked for until they do.

use serde_json::{Value, json};

use crate::common::client::{Client, Results};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::stage::{Stage, call, last_text, scripted, submit_to, types};

const GOOD: &str = r#"{"city":"Rome"}"#;

fn schema() -> Value {
    json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] })
}

/// A row for either endpoint whose model gives these answers one after the other.
fn row(endpoint: &str, answers: &[&str]) -> Value {
    let text = format!("simulate:{}", json!({ "answers": answers }));
    if endpoint == "/v1/responses" {
        json!({
            "model": "m", "input": text,
            "text": { "format": { "type": "json_schema", "name": "place", "schema": schema() } },
        })
    } else {
        json!({
            "model": "m", "messages": [{ "role": "user", "content": text }],
            "response_format": { "type": "json_schema", "json_schema": { "name": "place", "schema": schema() } },
        })
    }
}

async fn run(client: &Client, endpoint: &str, body: Value, ensure: &str) -> (Results, Value) {
    let id = submit_to(client, endpoint, &[("row", body)], json!({ "ensure_schema": ensure })).await;
    let batch = client.wait_for(&id, "completed").await;
    (client.results(&batch).await, batch)
}

fn answer(results: &Results) -> String {
    let body = &results.output.first().unwrap_or_else(|| panic!("{:?}", results.errors))["response"]["body"];
    match &body["choices"] {
        Value::Null => last_text(body).to_owned(),
        choices => choices[0]["message"]["content"].as_str().expect("a text").to_owned(),
    }
}

#[tokio::test]
async fn an_answer_that_does_not_match_is_corrected() {
    for dialect in ["native", "chat"] {
        let stage = Stage::with_flags(&["--upstream-responses", dialect]).await;
        let server = stage.serve().await;
        let client = server.client();
        for endpoint in ["/v1/responses", "/v1/chat/completions"] {
            let before = stage.upstream().await["requests"].as_u64().expect("a count");

            let body = row(endpoint, &["Rome, of course", r#"{"town":"Rome"}"#, GOOD]);
            let (results, batch) = run(&client, endpoint, body, "true").await;

            assert_eq!(answer(&results), GOOD, "{dialect} {endpoint}");
            let after = stage.upstream().await["requests"].as_u64().expect("a count");
            assert_eq!(after - before, 3);
            assert_tokens(endpoint, &results.output[0]["response"]["body"], &batch);
        }
    }
}

/// A response has the tokens of all its calls, a chat completion those of the last.
fn assert_tokens(endpoint: &str, answer: &Value, batch: &Value) {
    let (last, all) = (&answer["usage"]["total_tokens"], &batch["usage"]["total_tokens"]);
    if endpoint == "/v1/responses" {
        assert_eq!(last, all, "the response is one");
        assert_eq!(types(answer), ["message"]);
    } else {
        assert!(all.as_u64() > last.as_u64(), "the batch has used more than its last answer: {all} {last}");
    }
}

#[tokio::test]
async fn an_answer_that_never_matches_is_an_error_with_the_last_of_them() {
    let stage = Stage::with_flags(&["--schema-retries", "1"]).await;
    let server = stage.serve().await;
    let client = server.client();
    for endpoint in ["/v1/responses", "/v1/chat/completions"] {
        let (results, batch) = run(&client, endpoint, row(endpoint, &["one", "two", GOOD]), "true").await;

        assert_eq!(batch["request_counts"]["failed"], 1);
        let line = &results.errors[0];
        assert_eq!(line["error"]["code"], "schema_invalid");
        assert!(line["error"]["message"].as_str().expect("a message").contains("not valid JSON"), "{line}");
        assert_eq!(line["response"]["status_code"], 200);
        let body = &line["response"]["body"];
        let text = if endpoint == "/v1/responses" {
            last_text(body)
        } else {
            body["choices"][0]["message"]["content"].as_str().expect("a text")
        };
        assert_eq!(text, "two");
    }
}

#[tokio::test]
async fn the_batch_says_whether_answers_are_checked_and_else_the_settings() {
    for (flags, metadata, expected) in [
        (&[][..], json!({}), "one"),
        (&["--ensure-schema"], json!({}), GOOD),
        (&["--ensure-schema"], json!({ "ensure_schema": "false" }), "one"),
        (&[], json!({ "ensure_schema": "true" }), GOOD),
    ] {
        let stage = Stage::with_flags(flags).await;
        let server = stage.serve().await;
        let client = server.client();
        for endpoint in ["/v1/responses", "/v1/chat/completions"] {
            let id = submit_to(&client, endpoint, &[("row", row(endpoint, &["one", GOOD]))], metadata.clone()).await;
            let batch = client.wait_for(&id, "completed").await;

            assert_eq!(answer(&client.results(&batch).await), expected, "{flags:?} {metadata}");
        }
    }
}

#[tokio::test]
async fn answers_are_checked_after_tools_and_calls_for_tools_are_not() {
    let stage = Stage::with_flags(&["--ensure-schema"]).await;
    let script = json!({ "turns": [[call("add", json!({ "a": 1, "b": 2 }))]], "answers": ["three", GOOD] });
    let mut body = scripted(script, &["add"]);
    body["text"] = json!({ "format": { "type": "json_schema", "name": "place", "schema": schema() } });

    let response = stage.response(body).await;

    assert_eq!(types(&response), ["function_call", "function_call_output", "message"]);
    assert_eq!(last_text(&response), GOOD);
}

#[tokio::test]
async fn a_schema_that_is_none_is_said_before_anything_is_paid() {
    let stage = Stage::with_flags(&["--ensure-schema"]).await;
    let mut body = row("/v1/responses", &[GOOD]);
    body["text"]["format"]["schema"] = json!({ "type": "strang" });

    let line = stage.error(body).await;

    assert_eq!(line["error"]["code"], "unsupported");
    assert_eq!(stage.upstream().await["requests"], 0);
}

/// Rows that would kill or stop the process, each with what its error says, beside one that has no part in that.
#[tokio::test]
async fn a_hostile_schema_or_answer_fails_its_own_row_only() {
    let next = |no: usize| json!({ "anyOf": [{ "$ref": format!("#/$defs/d{}", no + 1) }] });
    let mut defs: serde_json::Map<String, Value> = (0..4_000).map(|no| (format!("d{no}"), next(no))).collect();
    defs.insert("d4000".to_owned(), json!({}));
    let chain = json!({ "$ref": "#/$defs/d0", "$defs": defs });
    let way =
        |required: &[&str]| json!({ "type": "object", "properties": { "x": { "$ref": "#" } }, "required": required });
    let two_ways = json!({ "anyOf": [way(&["x"]), way(&["x", "y"])] });
    let pattern = |no: usize| (format!("p{no}"), json!({ "pattern": format!("^(\\pL{{60}}){{4}}{no}$") }));
    let patterns = json!({ "properties": (0..200).map(pattern).collect::<serde_json::Map<_, _>>() });
    let branching = json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] });
    let deep = |levels: usize| format!("{}7{}", r#"{"x":"#.repeat(levels), "}".repeat(levels));
    let hostile = [
        (chain, GOOD.to_owned(), "unsupported", "lie within each other"),
        (branching, GOOD.to_owned(), "unsupported", "without going into the value"),
        (patterns, GOOD.to_owned(), "unsupported", "patterns"),
        (two_ways.clone(), deep(20), "schema_invalid", "does not match the schema"),
        (two_ways.clone(), deep(120), "schema_invalid", "does not match the schema"),
        (two_ways, deep(5_000), "schema_invalid", "recursion limit"),
    ];
    let stage = Stage::with_flags(&["--ensure-schema", "--schema-retries", "0"]).await;
    let server = stage.serve().await;
    let client = server.client();
    for endpoint in ["/v1/responses", "/v1/chat/completions"] {
        let format = if endpoint == "/v1/responses" { "/text/format" } else { "/response_format/json_schema" };
        let ask = |schema: &Value, answer: &str| {
            let mut body = row(endpoint, &[answer]);
            body.pointer_mut(format).expect("a format")["schema"] = schema.clone();
            body
        };
        let mut rows = vec![("good".to_owned(), row(endpoint, &[GOOD]))];
        for (no, (schema, answer, ..)) in hostile.iter().enumerate() {
            rows.push((no.to_string(), ask(schema, answer)));
        }
        let rows: Vec<(&str, Value)> = rows.iter().map(|(id, body)| (id.as_str(), body.clone())).collect();

        let id = submit_to(&client, endpoint, &rows, json!({})).await;
        let results = client.results(&client.wait_for(&id, "completed").await).await;

        assert_eq!(results.output_ids(), ["good"]);
        for (no, (.., code, message)) in hostile.iter().enumerate() {
            let id = no.to_string();
            let line = results.errors.iter().find(|line| line["custom_id"] == id.as_str()).expect("one line a row");
            assert_eq!(line["error"]["code"], *code, "{line}");
            assert!(line["error"]["message"].as_str().expect("a text").contains(message), "{}", line["error"]);
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_to_be_checked_is_not_asked_for_again() {
    let upstream = FakeUpstream::start();
    let text = json!({ "city": "x".repeat(5 << 20) }).to_string();
    let answer = json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }] });
    upstream.reply(move |_| Reply::new(200, answer.to_string()));
    let stage = Stage::at(&upstream, &["--ensure-schema"]).await;
    let server = stage.serve().await;

    let (results, _) = run(&server.client(), "/v1/chat/completions", row("/v1/chat/completions", &[]), "true").await;

    assert_eq!(results.errors[0]["error"]["code"], "schema_invalid");
    assert_eq!(upstream.row_calls().len(), 1);
}

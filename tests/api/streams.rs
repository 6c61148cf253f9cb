//! Answers that the upstream streams: clients get the ordinary object, and an answer that stalls is noticed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::fake_upstream::{Call, Reply};
use crate::common::test_app::TestApp;

const STREAMED: [&str; 2] = ["--stream", "always"];

const HELLO: [&str; 4] = [
    r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}"#,
    r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}"#,
    r#"{"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    "[DONE]",
];

fn is_streamed(call: &Call) -> bool {
    serde_json::from_slice::<Value>(&call.body).expect("a body")["stream"] == json!(true)
}

#[tokio::test]
async fn a_streamed_answer_is_the_ordinary_object() {
    let app = TestApp::with(&STREAMED).await;
    app.upstream.reply(|_| Reply::events(HELLO));

    let id = app.submit(rows(2)).await;
    let batch = app.wait_for(&id, "completed").await;

    let results = app.results(&batch).await;
    let body = &results.output[0]["response"]["body"];
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"], json!({ "role": "assistant", "content": "Hello" }));
    assert_eq!(batch["usage"]["total_tokens"], 10);
    let sent: Value = serde_json::from_slice(&app.upstream.calls()[0].body).expect("a body");
    assert_eq!((&sent["stream"], &sent["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn responses_and_completions_are_streamed_and_embeddings_are_not() {
    let app = TestApp::with(&STREAMED).await;
    let response = r#"{"id":"r","object":"response","status":"completed","output":[],"n":1.10}"#;
    let last = format!(r#"{{"type":"response.completed","response":{response}}}"#);
    let text = r#"{"id":"c","object":"text_completion","choices":[{"index":0,"text":"Hi","finish_reason":"stop"}]}"#;
    app.upstream.reply(move |call| match &*call.path {
        "/v1/responses" => Reply::events([&*last]),
        "/v1/completions" => Reply::events([text, "[DONE]"]),
        _ => Reply::new(200, r#"{"data":[{"embedding":[0.5]}]}"#),
    });

    for (url, body, expected) in [
        ("/v1/responses", r#"{"model":"m","input":"Hi"}"#, Some(r#""n":1.10"#)),
        ("/v1/completions", r#"{"model":"m","prompt":"Hi"}"#, Some(r#""text":"Hi""#)),
        ("/v1/embeddings", r#"{"model":"m","input":"Hi"}"#, None),
    ] {
        let input = app.upload(file([line("r").url(url).body(body)])).await;
        let id = app.create_batch_for(&input, url).await;
        let batch = app.wait_for(&id, "completed").await;
        let output = app.content(batch["output_file_id"].as_str().expect("it has one")).await.text();
        assert!(output.contains(expected.unwrap_or_default()), "{output}");
        let call = app.upstream.calls().pop().expect("a call");
        assert_eq!(is_streamed(&call), expected.is_some(), "{url}");
    }
}

#[tokio::test]
async fn an_answer_that_stalls_or_breaks_off_is_tried_again_and_a_slow_one_is_not() {
    // The first answer to a row, and how many calls it takes.
    type Answer = fn() -> Reply;
    let cases: [(&str, Answer, usize); 6] = [
        ("stalls", || Reply::events(&HELLO[..1]).without_end(), 2),
        ("breaks", || Reply::events(&HELLO[..1]).broken_off(), 2),
        ("ends too early", || Reply::events(&HELLO[..1]), 2),
        ("has an error", || Reply::events([HELLO[0], r#"{"error":{"message":"out of memory","code":500}}"#]), 2),
        ("stalls, and is no stream", || Reply::new(200, r#"{"id":"c","#).without_end(), 2),
        ("begins late", || Reply::events(HELLO).after(Duration::from_secs(3)), 1),
    ];
    for (what, first, calls) in cases {
        let app = TestApp::with(&["--stream", "always", "--stall-timeout", "1s"]).await;
        app.upstream.reply(move |call| if call.attempt == 0 { first() } else { Reply::events(HELLO) });

        let results = app.run(rows(1)).await;

        assert_eq!(results.output.len(), 1, "{what}: {:?}", results.errors);
        assert_eq!(app.upstream.calls().len(), calls, "{what}");
    }
}

#[tokio::test]
async fn an_error_of_the_row_in_a_stream_is_its_error_line() {
    let app = TestApp::with(&STREAMED).await;
    app.upstream.reply(|_| Reply::events([r#"{"error":{"message":"too long","code":400}}"#]));

    let results = app.run(rows(1)).await;

    assert_eq!(results.errors[0]["response"]["status_code"], 400);
    assert_eq!(app.upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_server_that_answers_a_streamed_call_plainly_is_understood() {
    let app = TestApp::with(&STREAMED).await;

    let results = app.run(rows(3)).await;

    assert_eq!(results.output.len(), 3);
    assert!(app.upstream.calls().iter().all(is_streamed));
}

#[tokio::test]
async fn calls_are_plain_by_default() {
    let app = TestApp::start().await;

    app.run(rows(1)).await;

    assert!(!app.upstream.calls()[0].text().contains("stream"));
}

//! Embeddings of several rows in one call: every row has the object that its own call would have had.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::builders::{file, line};
use crate::common::client::{Results, text};
use crate::common::fake_upstream::{Call, Reply};
use crate::common::test_app::TestApp;

const PATH: &str = "/v1/embeddings";

fn row(custom_id: &str, body: &Value) -> String {
    line(custom_id).url(PATH).body(&body.to_string()).to_string()
}

/// So many rows, each with a text of its own.
fn texts(count: usize) -> Vec<String> {
    (0..count).map(|no| row(&format!("row-{no}"), &json!({ "model": "m", "input": format!("text {no}") }))).collect()
}

/// The texts of a call.
fn inputs(call: &Call) -> Vec<String> {
    let body: Value = serde_json::from_slice(&call.body).expect("a body");
    match &body["input"] {
        Value::Array(texts) => texts.iter().map(|text| text.as_str().expect("a text").to_owned()).collect(),
        text => vec![text.as_str().expect("a text").to_owned()],
    }
}

/// An embedding that tells which text it is of.
fn embedded(call: &Call) -> Reply {
    let texts = inputs(call);
    let entry = |(index, text): (usize, &String)| {
        let number: u32 = text.bytes().map(u32::from).sum();
        json!({ "object": "embedding", "index": index, "embedding": [number, text.len()] })
    };
    let data: Vec<Value> = texts.iter().enumerate().map(entry).collect();
    let tokens: usize = texts.iter().map(String::len).sum();
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Reply::new(200, json!({ "object": "list", "data": data, "model": "m", "usage": usage }).to_string())
}

async fn run(app: &TestApp, rows: &[String]) -> (Results, Value) {
    let input = app.upload(file(rows)).await;
    let id = app.create_batch_for(&input, PATH).await;
    let batch = app.wait_for(&id, "completed").await;
    (app.results(&batch).await, batch)
}

/// The bodies of answers by `custom_id`. What the tokens of a call are shared out to is about those of the row alone.
fn bodies(results: &Results) -> Vec<(String, Value)> {
    let body = |line: &Value| {
        let mut body = line["response"]["body"].clone();
        assert!(body["usage"]["total_tokens"].as_u64() >= Some(1), "{body}");
        body["usage"].take();
        (line["custom_id"].to_string(), body)
    };
    let mut bodies: Vec<_> = results.output.iter().map(body).collect();
    bodies.sort_by(|(a, _), (b, _)| a.cmp(b));
    bodies
}

#[tokio::test]
async fn rows_are_sent_together_and_answered_as_if_they_were_not() {
    let mut answers = Vec::new();
    for (inputs_of_a_call, most_calls) in [("32", 100), ("1", 300)] {
        let app = TestApp::with(&["--merged-embeddings", inputs_of_a_call]).await;
        app.upstream.reply(embedded);

        let (results, batch) = run(&app, &texts(300)).await;

        let calls = app.upstream.calls();
        assert!(calls.len() <= most_calls, "{} calls", calls.len());
        assert_eq!(calls.iter().map(|call| inputs(call).len()).sum::<usize>(), 300, "each is sent once");
        answers.push((bodies(&results), batch["usage"]["total_tokens"].clone()));
    }
    assert!(answers[0] == answers[1], "the same objects, and tokens in all");
}

#[tokio::test]
async fn rows_with_other_parameters_are_other_calls() {
    let app = TestApp::start().await;
    app.upstream.reply(embedded);
    let with = |no: usize| row(&format!("row-{no}"), &json!({ "model": "m", "input": "x", "dimensions": 8 + no % 2 }));

    let (results, _) = run(&app, &(0..40).map(with).collect::<Vec<_>>()).await;

    assert_eq!(results.output.len(), 40);
    for call in app.upstream.calls() {
        let text = call.text();
        assert!(text.contains("\"dimensions\":8") != text.contains("\"dimensions\":9"), "{text}");
    }
}

#[tokio::test]
async fn a_surprise_has_each_row_called_by_itself() {
    type Answer = fn(&Call) -> Reply;
    // How a server answers calls with several inputs.
    let cases: [(&str, Answer); 4] = [
        ("refuses them", |_| Reply::error(422)),
        ("answers one", |_| Reply::new(200, r#"{"object":"list","data":[{"index":0,"embedding":[1]}]}"#)),
        ("answers in no order", |_| Reply::new(200, r#"{"object":"list","data":[{"embedding":[1]}]}"#)),
        ("answers no JSON", |_| Reply::new(200, "<html>")),
    ];
    for (what, several) in cases {
        let app = TestApp::with(&["--max-retries", "0"]).await;
        app.upstream.reply(move |call| if inputs(call).len() > 1 { several(call) } else { embedded(call) });

        let (results, _) = run(&app, &texts(200)).await;

        assert_eq!((results.output.len(), results.errors.len()), (200, 0), "{what}");
        let merged = app.upstream.calls().iter().filter(|call| inputs(call).len() > 1).count();
        assert!(merged <= 20, "{what}: {merged} merged calls, until they were given up");
    }
}

#[tokio::test]
async fn a_failure_that_one_row_may_have_caused_is_that_of_none() {
    type Answer = fn() -> Reply;
    // How a server answers calls with several inputs.
    let cases: [(&str, Answer); 5] = [
        ("does not let them in", || Reply::error(403)),
        ("has not implemented them", || Reply::error(501)),
        ("fails with them", || Reply::error(500)),
        ("lets them time out", || Reply::error(408)),
        ("breaks off", || Reply::new(200, r#"{"data":["#).broken_off()),
    ];
    for (what, several) in cases {
        let app = TestApp::with(&["--max-retries", "0"]).await;
        app.upstream.reply(move |call| if inputs(call).len() > 1 { several() } else { embedded(call) });

        let (results, _) = run(&app, &texts(100)).await;

        assert_eq!((results.output.len(), results.errors.len()), (100, 0), "{what}");
        assert!(app.upstream.calls().iter().any(|call| inputs(call).len() > 1), "{what}: none was merged");
    }
}

#[tokio::test]
async fn a_row_that_is_wrong_fails_alone() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| {
        if inputs(call).iter().any(|text| text == "text 7") { Reply::error(400) } else { embedded(call) }
    });

    let (results, _) = run(&app, &texts(100)).await;

    assert_eq!(results.output.len(), 99);
    assert_eq!(results.errors.len(), 1);
    assert_eq!(results.errors[0]["custom_id"], "row-7");
}

#[tokio::test]
async fn a_refusal_of_the_server_concerns_all_rows_of_a_call_and_fails_none() {
    let app = TestApp::with(&["--max-retries", "0"]).await;
    let is_first = AtomicBool::new(true);
    app.upstream.reply(move |call| if is_first.swap(false, SeqCst) { Reply::error(429) } else { embedded(call) });

    let (results, _) = run(&app, &texts(60)).await;

    assert_eq!((results.output.len(), results.errors.len()), (60, 0));
}

#[tokio::test]
async fn a_call_for_several_rows_says_the_metadata_that_they_have_in_common() {
    let app = TestApp::with(&["--metadata-headers", "team"]).await;
    app.upstream.reply(|call| embedded(call).after(Duration::from_millis(20)));
    let mut batches = Vec::new();
    for team in ["blue", "red"] {
        let rows = (0..200).map(|no| row(&format!("{no}"), &json!({ "model": "m", "input": format!("{team} {no}") })));
        let input = app.upload(file(rows)).await;
        let new = json!({
            "input_file_id": input, "endpoint": PATH, "completion_window": "24h", "metadata": { "team": team },
        });
        batches.push(app.post("/v1/batches", &new).await.ok());
    }
    for batch in &batches {
        app.wait_for(text(&batch["id"]), "completed").await;
    }

    let calls = app.upstream.calls();
    assert!(calls.iter().any(|call| inputs(call).len() > 1), "rows are sent together");
    for call in calls {
        let team = call.header("x-batchwright-metadata-team");
        assert!(!team.is_empty() && inputs(&call).iter().all(|text| text.starts_with(team)), "{team} {call:?}");
    }
}

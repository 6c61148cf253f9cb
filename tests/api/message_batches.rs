//! Anthropic's Message Batches, over the same engine.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::client::{Answer, send, text};
use crate::common::eventually::eventually;
use crate::common::fake_upstream::{Call, Reply};
use crate::common::test_app::TestApp;

const PATH: &str = "/v1/messages/batches";
const MESSAGE: &str = concat!(
    r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"Hi"}],"#,
    r#""stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}"#
);

fn request(custom_id: &str) -> Value {
    json!({ "custom_id": custom_id, "params": params(custom_id) })
}

fn params(custom_id: &str) -> Value {
    let message = json!({ "role": "user", "content": format!("Hello from {custom_id}") });
    json!({ "model": "m", "max_tokens": 9, "messages": [message] })
}

/// A service whose upstream answers as this says.
async fn app(reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> TestApp {
    let app = TestApp::with(&["--max-retries", "0"]).await;
    app.upstream.reply(reply);
    app
}

async fn create(app: &TestApp, requests: &[Value]) -> Value {
    app.post(PATH, &json!({ "requests": requests })).await.ok()
}

async fn ended(app: &TestApp, batch: &Value) -> Value {
    let path = format!("{PATH}/{}", text(&batch["id"]));
    eventually("the batch ends", async || {
        let batch = app.get(&path).await.ok();
        (batch["processing_status"] == "ended").then_some(batch)
    })
    .await
}

/// The results of a batch that has ended, ordered by `custom_id`.
async fn results(app: &TestApp, batch: &Value) -> Vec<(String, Value)> {
    let path = text(&batch["results_url"]).strip_prefix(&app.base_url).expect("a URL of the service");
    let answer = app.get(path).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-jsonl"));
    let lines = answer.text();
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        (text(&line["custom_id"]).to_owned(), line["result"].clone())
    };
    let mut results: Vec<_> = lines.lines().map(read).collect();
    results.sort_by(|(one, _), (other, _)| one.cmp(other));
    results
}

fn is_error(answer: &Answer, status: u16, kind: &str, message: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["type"]), (status, &json!("error")), "{body}");
    assert_eq!(body["error"], json!({ "type": kind, "message": message }));
    assert_eq!(body["request_id"], answer.header("request-id"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
}

#[tokio::test]
async fn requests_are_run_and_their_results_are_told() {
    let app = app(|call| match () {
        () if call.is_of("bad") => {
            let error = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#;
            Reply::new(400, error)
        }
        () if call.is_of("other") => Reply::error(400),
        () => Reply::new(200, MESSAGE),
    })
    .await;

    let created = create(&app, &[request("good"), request("bad"), request("other")]).await;
    let batch = ended(&app, &created).await;

    let new_counts = json!({ "processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0 });
    assert_eq!((&created["type"], &created["request_counts"]), (&json!("message_batch"), &new_counts));
    assert_eq!((&created["processing_status"], &created["results_url"]), (&json!("in_progress"), &Value::Null));
    let ended_counts = json!({ "processing": 0, "succeeded": 1, "errored": 2, "canceled": 0, "expired": 0 });
    assert_eq!(batch["request_counts"], ended_counts);
    assert!(text(&batch["ended_at"]) > text(&batch["created_at"]), "{batch}");
    let [bad, good, other] = &results(&app, &batch).await[..] else { panic!("three results") };
    assert_eq!(
        good.1,
        json!({ "type": "succeeded", "message": serde_json::from_str::<Value>(MESSAGE).expect("JSON") })
    );
    let errored = |message: &str| {
        let error = json!({ "type": "invalid_request_error", "message": message });
        json!({ "type": "errored", "error": { "type": "error", "error": error } })
    };
    assert_eq!((&bad.1, &other.1), (&errored("no"), &errored("No.")));
    let calls = app.upstream.calls();
    assert!(calls.iter().all(|call| call.path == "/v1/messages"));
}

#[tokio::test]
async fn params_arrive_byte_for_byte_on_one_line() {
    let app = app(|_| Reply::new(200, MESSAGE)).await;
    let params =
        r#"{ "model": "m",  "temperature": 1.10, "max_tokens": 9,"messages":[{"role":"user","content":"a\u00e9"}]}"#;
    let body = format!("{{ \"requests\" : [\r\n {{\"params\":{params},\n\"custom_id\":\"a\"}} ] }}");

    let created = send(app.request(Method::POST, PATH).body(body)).await.ok();
    ended(&app, &created).await;

    assert_eq!(app.upstream.calls()[0].text(), params);
}

#[tokio::test]
async fn what_is_no_batch_is_refused_and_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let requests = |list: Value| json!({ "requests": list }).to_string();
    let no_model = json!({ "custom_id": "b", "params": { "max_tokens": 9, "messages": [] } });
    let streamed = json!({ "custom_id": "a", "params": { "model": "m", "messages": [], "stream": true } });
    let pattern = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'";
    let duplicate = "The custom_id 'a' for this request is a duplicate of another request. The custom_id parameter \
                     must be unique for each request in a batch.";
    let cases = [
        ("{}".to_owned(), "requests: Field required".to_owned()),
        (requests(json!([])), "requests: List should have at least 1 item after validation, not 0".to_owned()),
        (requests(json!({})), "requests: Input should be a valid list".to_owned()),
        (requests(json!([7])), "requests.0: Input should be an object".to_owned()),
        (requests(json!([request("a"), { "params": {} }])), "requests.1: missing field `custom_id`".to_owned()),
        (requests(json!([{ "custom_id": "a" }])), "requests.0: missing field `params`".to_owned()),
        (requests(json!([request("a b")])), format!("requests.0.custom_id: {pattern}")),
        (requests(json!([request("a"), request("a")])), format!("requests.1.custom_id: {duplicate}")),
        (requests(json!([request("a"), no_model])), "requests.1.params.model: Model parameter is required.".to_owned()),
        (
            requests(json!([streamed])),
            "requests.0.params.stream: Messages: Streaming is not supported in the Batch API.".to_owned(),
        ),
    ];
    for (body, message) in cases {
        let refused = send(app.request(Method::POST, PATH).body(body)).await;
        is_error(&refused, 400, "invalid_request_error", &message);
    }
    let cut = send(app.request(Method::POST, PATH).body(r#"{"requests":["#)).await;
    assert_eq!((cut.status, &cut.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    assert_eq!(app.get(PATH).await.ok()["data"], json!([]));
    assert_eq!(app.blobs(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn requests_beyond_the_limits_are_refused() {
    let app =
        TestApp::with(&["--max-line-bytes", "2KiB", "--max-batch-bytes", "4KiB", "--max-file-bytes", "4KiB"]).await;
    let long = json!({ "custom_id": "a", "params": { "model": "m", "messages": [], "x": "x".repeat(3000) } });

    let refused = app.post(PATH, &json!({ "requests": [long] })).await;
    is_error(&refused, 413, "request_too_large", "requests.0: longer than the 1848 bytes one request may have");

    let many: Vec<Value> = (0..50).map(|number| request(&format!("r{number}"))).collect();
    let refused = app.post(PATH, &json!({ "requests": many })).await;
    is_error(&refused, 413, "request_too_large", "The requests are larger than the 4096 bytes they may have together.");
}

#[tokio::test]
async fn batches_are_listed_both_ways_and_only_here() {
    let app = app(|_| Reply::new(200, MESSAGE)).await;
    let openai = app.submit(crate::common::builders::rows(1)).await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(text(&create(&app, &[request(&format!("r{number}"))]).await["id"]).to_owned());
    }
    ids.reverse();
    let cases = [
        (String::new(), &ids[..], false),
        ("?limit=2".to_owned(), &ids[..2], true),
        (format!("?limit=2&after_id={}", ids[1]), &ids[2..4], true),
        (format!("?limit=2&after_id={}", ids[2]), &ids[3..], false),
        (format!("?limit=2&before_id={}", ids[3]), &ids[1..3], true),
        (format!("?limit=2&before_id={}", ids[1]), &ids[..1], false),
    ];
    for (query, expected, has_more) in cases {
        let page = app.get(&format!("{PATH}{query}")).await.ok();
        let found: Vec<&str> =
            page["data"].as_array().expect("a list").iter().map(|batch| text(&batch["id"])).collect();
        assert_eq!(found, expected, "{query}");
        assert_eq!(page["has_more"], has_more, "{query}");
        assert_eq!((text(&page["first_id"]), text(&page["last_id"])), (found[0], found[found.len() - 1]));
    }
    let bad = app.get(&format!("{PATH}?after_id=batch_1")).await;
    is_error(&bad, 400, "invalid_request_error", "Invalid 'after_id': 'batch_1' is no id of a message batch.");
    let hidden = app.get(&format!("{PATH}/{}", openai.replace("batch_", "msgbatch_"))).await;
    assert_eq!(hidden.status, 404);
    let shown = app.get(&format!("/v1/batches/{}", ids[0].replace("msgbatch_", "batch_"))).await.ok();
    assert_eq!(shown["endpoint"], "/v1/messages");
}

#[tokio::test]
async fn a_batch_that_is_canceled_tells_what_did_not_run() {
    let app = app(|_| Reply::new(200, MESSAGE).held()).await;
    let created = create(&app, &[request("a"), request("b")]).await;
    let path = format!("{PATH}/{}", text(&created["id"]));
    let early = app.get(&format!("{path}/results")).await;
    assert_eq!((early.status, &early.json()["error"]["type"]), (400, &json!("invalid_request_error")));
    assert_eq!(app.delete(&path).await.status, 400, "it has not ended");

    let canceled = app.post(&format!("{path}/cancel"), &json!({})).await.ok();
    let batch = ended(&app, &created).await;

    assert!(canceled["cancel_initiated_at"].is_string(), "{canceled}");
    let counts = json!({ "processing": 0, "succeeded": 0, "errored": 0, "canceled": 2, "expired": 0 });
    assert_eq!(batch["request_counts"], counts);
    let gone = |id: &str| (id.to_owned(), json!({ "type": "canceled" }));
    assert_eq!(results(&app, &batch).await, [gone("a"), gone("b")]);
}

#[tokio::test]
async fn a_batch_that_expired_tells_what_did_not_run() {
    let app = TestApp::with(&["--completion-windows", "1s"]).await;
    app.upstream.reply(|_| Reply::new(200, MESSAGE).held());

    let created = create(&app, &[request("a")]).await;
    let batch = ended(&app, &created).await;

    assert_eq!(batch["request_counts"]["expired"], 1);
    assert_eq!(results(&app, &batch).await, [("a".to_owned(), json!({ "type": "expired" }))]);
}

#[tokio::test]
async fn a_batch_that_was_deleted_is_gone_with_its_results() {
    let app = app(|_| Reply::new(200, MESSAGE)).await;
    let batch = create(&app, &[request("a")]).await;
    let batch = ended(&app, &batch).await;
    let id = text(&batch["id"]);
    let path = format!("{PATH}/{id}");

    let deleted = app.delete(&path).await.ok();

    assert_eq!(deleted, json!({ "id": id, "type": "message_batch_deleted" }));
    let message = format!("No message batch found with id '{id}'.");
    for gone in [
        app.get(&path).await,
        app.get(&format!("{path}/results")).await,
        app.delete(&path).await,
        app.post(&format!("{path}/cancel"), &json!({})).await,
    ] {
        is_error(&gone, 404, "not_found_error", &message);
    }
    assert_eq!(app.get(PATH).await.ok(), json!({ "data": [], "has_more": false, "first_id": null, "last_id": null }));
    let other = app.get(&format!("/v1/batches/{}", id.replace("msgbatch_", "batch_"))).await.ok();
    assert_eq!(app.content(text(&other["output_file_id"])).await.status, 404);
}

#[tokio::test]
async fn a_batch_survives_a_crash_of_the_service() {
    let app = app(|_| Reply::new(200, MESSAGE).held()).await;
    let created = create(&app, &[request("a"), request("b")]).await;

    let stopped = app.crash().await;
    stopped.upstream.reply(|_| Reply::new(200, MESSAGE));
    let app = stopped.start(&[]).await;

    let batch = ended(&app, &created).await;
    assert_eq!(batch["request_counts"]["succeeded"], 2);
    assert_eq!(results(&app, &batch).await.len(), 2);
}

//! `Idempotency-Key` of the requests that create something: a repetition has the effect of one request.

use futures::future::join_all;
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Answer, error, new_batch, send, text};
use crate::common::test_app::TestApp;

/// A request of one kind, with a number that makes it another request.
type Kind = (&'static str, fn(&TestApp, &str, usize) -> RequestBuilder);

const KINDS: [Kind; 7] = [
    ("file", file),
    ("upload", upload),
    ("part", part),
    ("completion", completion),
    ("batch of a file", batch_of_file),
    ("batch of rows", batch_of_rows),
    ("message batch", message_batch),
];

fn form(name: &'static str, bytes: String) -> Form {
    Form::new().part(name, Part::bytes(bytes.into_bytes()).file_name("input.jsonl"))
}

fn file(app: &TestApp, _: &str, number: usize) -> RequestBuilder {
    app.request(Method::POST, "/v1/files").multipart(form("file", rows(number)).text("purpose", "batch"))
}

fn upload(app: &TestApp, _: &str, number: usize) -> RequestBuilder {
    app.request(Method::POST, "/v1/uploads").json(&new_upload(number))
}

fn part(app: &TestApp, id: &str, number: usize) -> RequestBuilder {
    app.request(Method::POST, &format!("/v1/uploads/{id}/parts")).multipart(form("data", rows(number)))
}

fn completion(app: &TestApp, id: &str, number: usize) -> RequestBuilder {
    let body = if number == 1 { json!({ "part_ids": [] }) } else { json!({ "part_ids": ["part_x"] }) };
    app.request(Method::POST, &format!("/v1/uploads/{id}/complete")).json(&body)
}

fn batch_of_file(app: &TestApp, _: &str, number: usize) -> RequestBuilder {
    app.request(Method::POST, "/v1/batches").json(&new_batch(&format!("file-{number}"), "24h"))
}

fn batch_of_rows(app: &TestApp, _: &str, number: usize) -> RequestBuilder {
    let mut body = new_batch("", "24h");
    body["input_file_id"] = Value::Null;
    body["requests"] = (0..number).map(|_| json!({ "body": { "model": "m", "messages": [] } })).collect();
    app.request(Method::POST, "/v1/batches").json(&body)
}

fn message_batch(app: &TestApp, _: &str, number: usize) -> RequestBuilder {
    let params = json!({ "model": "m", "max_tokens": number, "messages": [{ "role": "user", "content": "Hi" }] });
    let body = json!({ "requests": [{ "custom_id": "a", "params": params }] });
    app.request(Method::POST, "/v1/messages/batches").json(&body)
}

fn new_upload(bytes: usize) -> Value {
    json!({ "filename": "x", "purpose": "user_data", "bytes": bytes, "mime_type": "text/plain" })
}

/// An app and a pending upload of no bytes.
async fn with_upload() -> (TestApp, String) {
    let app = TestApp::with(&["--role", "api"]).await;
    let upload = app.post("/v1/uploads", &new_upload(0)).await.ok();
    (app, text(&upload["id"]).to_owned())
}

async fn sent(request: RequestBuilder, key: &str) -> Answer {
    send(request.header("Idempotency-Key", key)).await
}

#[tokio::test]
async fn the_same_request_again_returns_the_first_object_also_at_once() {
    for (kind, request) in KINDS {
        let (app, id) = with_upload().await;

        let at_once = join_all((0..6).map(|_| sent(request(&app, &id, 1), "once"))).await;
        let later = sent(request(&app, &id, 1), "once").await;
        let of_its_own = sent(request(&app, &id, 1), "twice").await;

        let first = at_once[0].ok();
        assert!(at_once.iter().chain([&later]).all(|answer| answer.ok() == first), "{kind}: {at_once:?}");
        // Completing is repeatable by itself.
        assert_eq!(of_its_own.ok()["id"] == first["id"], kind == "completion", "{kind}");
    }
}

#[tokio::test]
async fn repetitions_leave_no_blobs_behind() {
    let (app, id) = with_upload().await;

    join_all((0..6).map(|_| sent(file(&app, &id, 1), "file"))).await;
    join_all((0..6).map(|_| sent(part(&app, &id, 1), "part"))).await;
    join_all((0..6).map(|_| sent(batch_of_rows(&app, &id, 1), "batch of rows"))).await;
    join_all((0..6).map(|_| sent(message_batch(&app, &id, 1), "message batch"))).await;

    // The bytes and the row index of three files, and the part.
    assert_eq!(app.blobs().len(), 7);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_request_is_refused_for_good() {
    for (kind, request) in KINDS {
        let (app, id) = with_upload().await;
        sent(request(&app, &id, 1), "once").await.ok();

        let others = [
            sent(request(&app, &id, 2), "once").await,
            sent(app.request(Method::POST, "/v1/uploads").json(&new_upload(77)), "once").await,
        ];

        let message = "The Idempotency-Key was used before, for another request. Use a fresh key for this one.";
        for answer in others {
            // Anthropic's errors have no code.
            let code = (answer.json()["type"] != "error").then_some("idempotency_key_reused");
            let error = &answer.json()["error"];
            assert_eq!((answer.status, &error["message"]), (409, &json!(message)), "{kind}");
            assert_eq!(error["code"].as_str(), code, "{kind}");
            assert_eq!(answer.header("x-should-retry"), "false");
        }
    }
}

#[tokio::test]
async fn a_key_outlives_the_process() {
    let (app, id) = with_upload().await;
    let first = sent(file(&app, &id, 1), "once").await.ok();

    let app = app.crash().await.start(&[]).await;

    assert_eq!(sent(file(&app, &id, 1), "once").await.ok(), first);
}

#[tokio::test]
async fn a_key_whose_object_is_gone_is_refused() {
    let (app, id) = with_upload().await;
    let first = sent(file(&app, &id, 1), "once").await.ok();
    let file_id = text(&first["id"]);
    app.delete(&format!("/v1/files/{file_id}")).await.ok();

    let answer = sent(file(&app, &id, 1), "once").await;

    let message = format!(
        "The Idempotency-Key was used before, for '{file_id}', which was deleted or has expired. Use a fresh key to \
         make another one."
    );
    assert_eq!((answer.status, answer.json()), (409, error(&message, None, Some("idempotency_key_reused"))));
}

#[tokio::test]
async fn a_refused_request_does_not_use_its_key() {
    let (app, id) = with_upload().await;

    let refused = sent(app.request(Method::POST, "/v1/files").multipart(form("file", rows(1))), "once").await;
    let empty = sent(file(&app, &id, 0), "once").await;

    assert_eq!((refused.status, empty.status), (400, 400));
    sent(file(&app, &id, 1), "once").await.ok();
}

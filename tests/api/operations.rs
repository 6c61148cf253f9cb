//! What is served beside files and batches.

use reqwest::Method;
use serde_json::json;

use crate::common::client::{Answer, error, send};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};

#[tokio::test]
async fn the_models_are_those_of_the_upstream_as_it_lists_them() {
    let app = TestApp::with(&["--upstream-key", "secret"]).await;
    app.upstream.reply(|_| Reply::new(200, "{ \"object\": \"list\",\n \"data\": [{ \"id\": \"m\", \"x\": 1.10 }] }"));

    let answer = app.get("/v1/models").await;

    assert_eq!(answer.text(), "{ \"object\": \"list\",\n \"data\": [{ \"id\": \"m\", \"x\": 1.10 }] }");
    assert_eq!(answer.header("content-type"), "application/json");
    let call = &app.upstream.lists()[0];
    assert_eq!((call.path.as_str(), call.header("authorization")), ("/v1/models", "Bearer secret"));
}

#[tokio::test]
async fn a_model_is_its_entry_in_the_list() {
    let app = TestApp::start().await;
    let list = r#"{"data":[{"id":"m","x":1.10},{"no":"id"},{"id":"Qwen/Qwen3-8B","object":"model"},{"id":"a b?"}]}"#;
    app.upstream.reply(move |_| Reply::new(200, list));

    for (path, entry) in [
        ("m", r#"{"id":"m","x":1.10}"#),
        ("Qwen/Qwen3-8B", r#"{"id":"Qwen/Qwen3-8B","object":"model"}"#),
        ("Qwen%2FQwen3-8B", r#"{"id":"Qwen/Qwen3-8B","object":"model"}"#),
        ("a%20b%3f", r#"{"id":"a b?"}"#),
    ] {
        let answer = app.get(&format!("/v1/models/{path}")).await;

        assert_eq!((answer.status, answer.text()), (200, entry.to_owned()), "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
    }
    let answer = app.get("/v1/models/Qwen/Qwen3").await;
    let expected = error("The model 'Qwen/Qwen3' does not exist", Some("model"), Some("model_not_found"));
    assert_eq!((answer.status, answer.json()), (404, expected));
}

#[tokio::test]
async fn an_upstream_that_answers_with_no_list_has_no_models() {
    let app = TestApp::start().await;

    for body in ["<html>", "[]", r#"{"object":"list"}"#, r#"{"data":{}}"#, "null", ""] {
        app.upstream.reply(move |_| Reply::new(200, body));

        for path in ["/v1/models", "/v1/models/m"] {
            let answer = app.get(path).await;
            let said = answer.json()["error"]["message"].as_str().expect("a message").to_owned();

            assert_eq!(answer.status, 502, "{path} {body}");
            assert!(said.starts_with("The upstream answered with something else than a list of models: "), "{said}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_has_no_models() {
    let app = Stopped::new(FakeUpstream::down()).start(&[]).await;

    let answer = app.get("/v1/models").await;

    assert_eq!(answer.status, 502);
    let answer = answer.json();
    assert_eq!(answer["error"]["type"], "server_error");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("could not be reached")), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_refuses_has_no_models() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::error(401));

    let answer = app.get("/v1/models").await;

    let mut expected = error("The upstream answered with status 401.", None, None);
    expected["error"]["type"] = json!("server_error");
    assert_eq!((answer.status, answer.json()), (502, expected));
}

/// Asks as a browser does for a page of this origin.
async fn asked_by(app: &TestApp, method: Method, path: &str, origin: &str) -> Answer {
    let request = app.request(method, path).header("origin", origin);
    send(
        request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,idempotency-key,x-stainless-os"),
    )
    .await
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_the_api_and_no_others() {
    let (ours, other) = ("https://app.example.com", "https://other.example.com");
    let listed = format!("http://localhost:3000,{ours}");
    for (allowed, origin, expected) in
        [(Some(&*listed), ours, ours), (Some(&*listed), other, ""), (Some("*"), other, "*"), (None, ours, "")]
    {
        let flags = allowed.map(|allowed| ["--cors-allowed-origins", allowed]);
        let app = TestApp::with(flags.as_ref().map_or(&[], |flags| flags)).await;
        let preflight = asked_by(&app, Method::OPTIONS, "/v1/batches", origin).await;
        let list = asked_by(&app, Method::GET, "/v1/batches", origin).await;
        let refusal = asked_by(&app, Method::GET, "/v1/batches/batch_x", origin).await;

        for answer in [&preflight, &list, &refusal] {
            assert_eq!(answer.header("access-control-allow-origin"), expected, "{allowed:?} {origin} {answer:?}");
            assert!(answer.header("x-request-id").starts_with("req_"), "{allowed:?} {answer:?}");
        }
        assert_eq!(preflight.status, if allowed.is_some() { 200 } else { 405 }, "{allowed:?} {preflight:?}");
        let exposed = list.header("access-control-expose-headers");
        assert_eq!(exposed.contains("x-request-id"), allowed.is_some(), "{allowed:?} {exposed}");
        if allowed.is_some() {
            let headers = preflight.header("access-control-allow-headers");
            assert_eq!(headers, "authorization,idempotency-key,x-stainless-os");
            assert!(preflight.header("access-control-allow-methods").contains("DELETE"), "{preflight:?}");
        }
    }
}

#[tokio::test]
async fn a_service_that_works_is_alive_and_ready() {
    let app = TestApp::start().await;

    assert_eq!(app.get("/healthz").await.ok(), json!({ "status": "ok" }));
    assert_eq!(app.get("/readyz").await.ok(), json!({ "status": "ready" }));
}

#[tokio::test]
async fn a_worker_answers_health_checks_and_no_clients() {
    let app = TestApp::with(&["--role", "worker"]).await;

    assert_eq!(app.get("/healthz").await.ok(), json!({ "status": "ok" }));
    assert_eq!(app.get("/v1/files").await.status, 404);
}

#[tokio::test]
async fn the_openapi_document_is_served() {
    let app = TestApp::start().await;

    let document = app.get("/openapi.json").await.ok();

    assert_eq!(document["info"]["title"], "batchwright");
    let paths = document["paths"].as_object().expect("paths");
    for path in ["/v1/files", "/v1/files/{file_id}/content", "/v1/batches", "/v1/batches/{batch_id}/cancel"] {
        assert!(paths.contains_key(path), "{path}");
    }
}

#[test]
fn the_openapi_document_in_the_repository_is_up_to_date() {
    let kept = include_str!("../../openapi/openapi.json");

    let made = batchwright::api::openapi::document_text();

    assert!(kept == made, "write it anew: cargo run -- openapi > openapi/openapi.json");
}

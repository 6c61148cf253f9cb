//! What every answer has: a request id, and for errors the one envelope.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{error, new_batch, send};
use crate::common::test_app::TestApp;

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;
    let content = format!("/v1/files/{file_id}/content");
    let requests: [(RequestBuilder, u16); 10] = [
        (app.request(Method::GET, "/v1/files"), 200),
        (app.request(Method::GET, &content), 200),
        (app.request(Method::HEAD, &content), 200),
        (app.request(Method::GET, &content).header("range", "bytes=0-1"), 206),
        (app.request(Method::GET, &content).header("range", "bytes=99999-"), 416),
        (app.request(Method::GET, "/healthz"), 200),
        (app.request(Method::GET, "/v1/nothing"), 404),
        (app.request(Method::GET, "/v1/files/file-nothing"), 404),
        (app.request(Method::PATCH, "/v1/files"), 405),
        (app.request(Method::POST, "/v1/batches").body("{"), 400),
    ];

    for (request, status) in requests {
        let what = format!("{request:?}");
        let answer = send(request).await;

        assert_eq!(answer.status, status, "{what}");
        let digits = answer.header("x-request-id").strip_prefix("req_").unwrap_or_default();
        assert!(digits.len() == 32 && digits.chars().all(|c| c.is_ascii_hexdigit()), "{what} {:?}", answer.headers);
    }
}

#[tokio::test]
async fn request_ids_are_all_different() {
    let app = TestApp::start().await;

    let (first, second) = (app.get("/healthz").await, app.get("/healthz").await);

    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

async fn assert_not_routed(app: &TestApp, method: Method, path: &str, status: u16, message: &str) {
    let answer = send(app.request(method, path)).await;

    assert_eq!(answer.status, status, "{path}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json(), error(message, None, None));
}

#[tokio::test]
async fn an_unknown_route_is_named() {
    let app = TestApp::start().await;

    for (method, path) in [
        (Method::GET, "/v1/nothing"),
        (Method::POST, "/nothing"),
        (Method::GET, "/v1"),
        (Method::GET, "/v1/files/"),
        (Method::GET, "/v1/batches/batch_1/cancel/x"),
    ] {
        let message = format!("Invalid URL ({method} {path})");
        assert_not_routed(&app, method, path, 404, &message).await;
    }
}

#[tokio::test]
async fn a_wrong_method_is_named_with_the_whole_path() {
    let app = TestApp::start().await;

    for (method, path) in [
        (Method::DELETE, "/v1/batches/batch_1"),
        (Method::PUT, "/v1/files"),
        (Method::GET, "/v1/batches/batch_1/cancel"),
        (Method::POST, "/healthz"),
    ] {
        let message = format!("Not allowed to {method} on {path}.");
        assert_not_routed(&app, method, path, 405, &message).await;
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    let app = TestApp::start().await;

    for body in ["", "{", "[]", "7", "\"x\"", "{} {}", "\u{feff}{}"] {
        let answer = send(app.request(Method::POST, "/v1/batches").body(body)).await;

        assert_eq!(answer.status, 400, "{body}");
        let answer = answer.json();
        let message = answer["error"]["message"].as_str().expect("a message");
        assert!(message.starts_with("We could not parse the JSON body of your request."), "{message}");
        assert_eq!(answer, error(message, None, None));
    }
}

#[tokio::test]
async fn a_json_body_of_any_size_gets_the_envelope() {
    let app = TestApp::start().await;

    let answer = app.post("/v1/batches", &json!({ "input_file_id": "x".repeat(2 << 20) })).await;

    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn an_id_that_is_no_text_is_of_nothing() {
    let app = TestApp::start().await;

    for path in ["/v1/files/%FF", "/v1/files/%FF/content", "/v1/batches/batch_%FF"] {
        let answer = app.get(path).await;

        assert!(matches!(answer.status, 400 | 404), "{path} {}", answer.status);
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        let message = "Invalid URL: what its path names is not UTF-8 once it is percent-decoded.";
        assert_eq!(answer.json(), error(message, None, None), "{path}");
    }
}

#[tokio::test]
async fn ids_that_are_of_nothing_are_not_found() {
    let app = TestApp::start().await;
    let unknown_file = "file-0000000000000000000000";
    let unknown_batch = format!("batch_{}", "0".repeat(32));
    let cases = [
        (format!("/v1/files/{unknown_file}"), format!("No such File object: {unknown_file}"), Some("id")),
        ("/v1/files/x/content".to_owned(), "No such File object: x".to_owned(), Some("id")),
        (format!("/v1/batches/{unknown_batch}"), format!("No batch found with id '{unknown_batch}'."), None),
        ("/v1/batches/batch_x".to_owned(), "No batch found with id 'batch_x'.".to_owned(), None),
    ];

    for (path, message, param) in cases {
        let answer = app.get(&path).await;

        assert_eq!((answer.status, answer.json()), (404, error(&message, param, None)));
    }
}

#[tokio::test]
async fn an_id_of_no_batch_at_all_is_an_invalid_value() {
    let app = TestApp::start().await;

    let answers = [app.get("/v1/batches/wrong").await, app.cancel("wrong").await];

    let message = "Invalid 'batch_id': 'wrong'. Expected an ID that begins with 'batch'.";
    for answer in answers {
        assert_eq!((answer.status, answer.json()), (400, error(message, Some("batch_id"), Some("invalid_value"))));
    }
}

#[tokio::test]
async fn a_parameter_that_is_absent_or_null_is_missing() {
    let app = TestApp::start().await;

    for param in ["input_file_id", "endpoint", "completion_window"] {
        let (mut null, mut absent) = (new_batch("file-1", "24h"), new_batch("file-1", "24h"));
        null[param] = Value::Null;
        absent.as_object_mut().expect("an object").remove(param);
        for new in [null, absent] {
            let answer = app.post("/v1/batches", &new).await;

            let message = format!("Missing required parameter: '{param}'.");
            let expected = error(&message, Some(param), Some("missing_required_parameter"));
            assert_eq!((answer.status, answer.json()), (400, expected));
        }
    }
}

#[tokio::test]
async fn a_parameter_that_cannot_be_is_named_with_what_can() {
    let app = TestApp::start().await;
    let endpoints = "'/v1/responses', '/v1/chat/completions', '/v1/embeddings', '/v1/completions', '/v1/moderations', \
                     '/v1/images/generations', '/v1/images/edits', '/v1/videos', \
                     '/v1/audio/transcriptions', '/v1/audio/translations', '/v1/messages', '/v1/score', '/v1/rerank', \
                     '/v2/rerank', '/v1/pooling', '/v1/classify', and '/classify'";
    let unknown_endpoint = format!("Invalid value: '/v1/x'. Supported values are: {endpoints}.");
    let cases = [
        ("endpoint", json!("/v1/x"), unknown_endpoint.as_str(), "endpoint", "invalid_value"),
        (
            "completion_window",
            json!("7d"),
            "Invalid value: '7d'. Supported values are: '24h' and '1h'.",
            "completion_window",
            "invalid_value",
        ),
        (
            "input_file_id",
            json!("wrong-id"),
            "Invalid 'input_file_id': 'wrong-id'. Expected an ID that begins with 'file'.",
            "input_file_id",
            "invalid_value",
        ),
        (
            "input_file_id",
            json!(["file-1"]),
            "Invalid type for 'input_file_id': expected a string, but got an array instead.",
            "input_file_id",
            "invalid_type",
        ),
        (
            "metadata",
            json!({ "tags": ["a"] }),
            "Invalid type for 'metadata.tags': expected a string, but got an array instead.",
            "metadata.tags",
            "invalid_type",
        ),
    ];

    for (member, value, message, param, code) in cases {
        let mut new = new_batch("file-1", "24h");
        new[member] = value;
        let answer = app.post("/v1/batches", &new).await;

        assert_eq!((answer.status, answer.json()), (400, error(message, Some(param), Some(code))));
    }
}

#[tokio::test]
async fn an_output_expiry_that_cannot_be_is_named_with_its_bounds() {
    let app = TestApp::start().await;
    let cases = [
        (
            json!(1),
            "Invalid 'output_expires_after.seconds': integer below minimum value. \
             Expected a value >= 3600, but got 1 instead.",
            "integer_below_min_value",
        ),
        (
            json!(u64::MAX),
            "Invalid 'output_expires_after.seconds': integer above maximum value. \
             Expected a value <= 2592000, but got 18446744073709551615 instead.",
            "integer_above_max_value",
        ),
        (
            json!(4000.5),
            "Invalid type for 'output_expires_after.seconds': expected an integer, but got a decimal instead.",
            "invalid_type",
        ),
    ];

    for (seconds, message, code) in cases {
        let mut new = new_batch("file-1", "24h");
        new["output_expires_after"] = json!({ "anchor": "created_at", "seconds": seconds });
        let answer = app.post("/v1/batches", &new).await;

        let expected = error(message, Some("output_expires_after.seconds"), Some(code));
        assert_eq!((answer.status, answer.json()), (400, expected));
    }
}

#[tokio::test]
async fn a_limit_out_of_bounds_is_refused() {
    let app = TestApp::start().await;
    let above = "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead.";
    let below = "Invalid 'limit': integer below minimum value. Expected a value >= 0, but got -1 instead.";
    let far_above =
        "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 99999999999999999999 instead.";
    let cases = [
        ("/v1/batches?limit=101", above, "integer_above_max_value"),
        ("/v1/batches?limit=99999999999999999999", far_above, "integer_above_max_value"),
        ("/v1/batches?limit=-1", below, "integer_below_min_value"),
        ("/v1/files?limit=-1", below, "integer_below_min_value"),
        (
            "/v1/files?limit=x",
            "Invalid type for 'limit': expected an integer, but got a string instead.",
            "invalid_type",
        ),
    ];

    for (path, message, code) in cases {
        let answer = app.get(path).await;

        assert_eq!((answer.status, answer.json()), (400, error(message, Some("limit"), Some(code))), "{path}");
    }
}

//! The client against servers that break off, refuse and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::*;

async fn client(server: Router) -> Client {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&format!("http://{}/v1/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, server).await });
    client
}

fn batch(status: &str) -> Json<Value> {
    Json(json!({
        "id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "status": status, "errors": null,
        "input_file_id": "file-1", "completion_window": "24h", "output_file_id": null, "error_file_id": null,
        "created_at": 1, "expires_at": 2, "request_counts": { "total": 0, "completed": 0, "failed": 0 },
        "metadata": null,
    }))
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    const TEXT: &str = "0123456789";
    let content = async |headers: HeaderMap| {
        let from = headers.get(header::RANGE).map_or(0, |range| {
            let text = range.to_str().unwrap();
            text.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
        });
        let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        // Four bytes, and then the connection breaks unless they are the last.
        let piece = TEXT[from..].get(..4).unwrap_or(&TEXT[from..]);
        let broken = async {
            // Lets the server send what it has.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("broken"))
        };
        let body = Body::from_stream(stream::iter([Ok(piece)]).chain(stream::once(broken)));
        (status, [(header::CONTENT_LENGTH, TEXT.len() - from)], body)
    };
    let client = client(Router::new().route("/v1/files/file-1/content", get(content))).await;

    assert_eq!(client.content("file-1").await.unwrap(), TEXT.as_bytes());
}

#[tokio::test]
async fn a_download_goes_on_where_a_server_knows_no_ranges() {
    let client = client(Router::new().route("/v1/files/file-1/content", get(async || "0123456789"))).await;

    for (from, expected) in [(0, Some("0123456789")), (7, Some("789")), (10, Some("")), (11, None)] {
        let mut rest = Vec::new();
        let size = client.download_from("file-1", from, &mut rest).await.ok();
        let expected = expected.map(|rest| (10, rest.as_bytes()));
        assert_eq!(size.map(|size| (size, &rest[..])), expected, "{from}");
    }
}

#[tokio::test]
async fn a_download_to_a_path_leaves_the_whole_file_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("output.jsonl");
    let client = client(Router::new().route("/v1/files/file-1/content", get(async || "{}\n"))).await;

    let error = client.download_to("file-2", &path).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(answer) if answer.status == 404));
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);

    assert_eq!(client.download_to("file-1", &path).await.unwrap(), 3);
    assert_eq!(std::fs::read(&path).unwrap(), b"{}\n");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
}

#[tokio::test]
async fn waiting_outlasts_a_server_that_cannot_answer_for_a_while() {
    let reads = Arc::new(AtomicU32::new(0));
    let read = async move || match reads.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(batch("in_progress")),
        1 => Err((StatusCode::SERVICE_UNAVAILABLE, [("retry-after-ms", "1")], "later")),
        _ => Ok(batch("completed")),
    };
    let client = client(Router::new().route("/v1/batches/batch_1", get(read))).await;

    let mut seen = Vec::new();
    let polling = Polling::every(Duration::from_millis(1));
    let ended = client.wait("batch_1", polling, |batch| seen.push(batch.status.as_str())).await.unwrap();

    assert_eq!(ended.status.as_str(), "completed");
    assert_eq!(seen, ["in_progress", "completed"]);
    let impatient = Polling { longest_outage: Duration::ZERO, ..polling };
    let gone = Client::new("http://127.0.0.1:9/v1").unwrap();
    let error = gone.wait("batch_1", impatient, |_| ()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn a_batch_with_a_key_is_asked_for_again_under_the_same_key() {
    let calls = Arc::new(AtomicU32::new(0));
    let create = async move |headers: HeaderMap| {
        assert_eq!(headers["idempotency-key"], "k");
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err(StatusCode::SERVICE_UNAVAILABLE),
            _ => Ok(batch("validating")),
        }
    };
    let client = client(Router::new().route("/v1/batches", post(create))).await;

    let request = BatchRequest { idempotency_key: Some("k".to_owned()), ..BatchRequest::new("file-1", "/v1/x") };

    assert_eq!(client.create_batch(&request).await.unwrap().id, "batch_1");
}

#[tokio::test]
async fn an_error_has_the_status_and_the_message_of_the_server() {
    let envelope = json!({ "error": { "message": "No such File.", "type": "t", "param": "id", "code": "c" } });
    let server = Router::new()
        .route("/v1/batches/openai", get(async || (StatusCode::NOT_FOUND, Json(envelope))))
        .route("/v1/batches/proxy", get(async || (StatusCode::BAD_GATEWAY, "<html>")))
        .route("/v1/batches/silent", get(async || StatusCode::TOO_MANY_REQUESTS));
    let client = client(server).await;
    let cases = [
        ("openai", "No such File. (HTTP 404)", false),
        ("proxy", "<html> (HTTP 502)", true),
        ("silent", "429 Too Many Requests (HTTP 429)", true),
    ];

    for (id, text, may_pass) in cases {
        let error = client.batch(id).await.unwrap_err();
        assert_eq!((error.to_string().as_str(), error.may_pass()), (text, may_pass));
    }
}

#[test]
fn a_base_url_is_one_of_http() {
    for url in ["", "127.0.0.1:8080/v1", "ftp://host/v1"] {
        assert!(matches!(Client::new(url), Err(ClientError::BaseUrl)), "{url}");
    }
    let client = Client::new("http://host/v1").unwrap();
    assert_eq!(client.url(&["files", "a/b"]).as_str(), "http://host/v1/files/a%2Fb");
}

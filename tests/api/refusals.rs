//! Refusals of requests whose bodies are not read: they reach their clients, and say whether the connection goes on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::connections::{answer, until_closed};
use crate::common::raw_http::{chunked, get, open};
use crate::common::test_app::TestApp;

const PIECE: usize = 256 << 10;
const PIECES: usize = 80;

/// Sends a body of 20 MB in pieces, then reads the answer until the connection is closed.
async fn answer_after_the_body(address: SocketAddr, route: &str) -> std::io::Result<String> {
    let framing = format!("Content-Type: application/json\r\nContent-Length: {}", PIECES * PIECE);
    let mut connection = open(address, format!("{route} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n")).await;
    let piece = vec![b'x'; PIECE];
    for _ in 0..PIECES {
        connection.write_all(&piece).await?;
    }
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn a_refusal_reaches_a_client_whose_body_is_still_coming() {
    let app = TestApp::start().await;

    for (route, status) in
        [("POST /v1/unknown", 404), ("PUT /v1/files", 405), ("POST /v1/files", 400), ("POST /v1/batches", 400)]
    {
        for round in 0..20 {
            let answer = answer_after_the_body(app.address, route).await;
            let text = answer.unwrap_or_else(|error| panic!("{route}, round {round}: {error}"));

            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{route}, round {round}: {text}");
            assert!(text.contains("invalid_request_error"), "{route}, round {round}: {text}");
        }
    }
}

/// A refusal, and the status of the next answer on its connection: nothing if the refusal says that it is closed.
async fn next_on_the_connection(address: SocketAddr, head: &str, body: &[u8]) -> (String, String) {
    let mut connection = open(address, head).await;
    connection.write_all(body).await.expect("the server reads");
    let refusal = answer(&mut connection).await;
    if refusal.contains("connection: close") {
        return (refusal, until_closed(connection).await);
    }
    connection.write_all(get("/healthz").as_bytes()).await.expect("it is open");
    let next = answer(&mut connection).await;
    (refusal, next.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal_unless_a_long_body_follows() {
    let app = TestApp::start().await;
    let long = vec![b'x'; 200_000];
    let cases = [
        ("Content-Length: 12", b"twelve bytes".to_vec(), "200"),
        ("Transfer-Encoding: chunked", chunked(b"twelve bytes", 5), "200"),
        ("Content-Length: 200000", long.clone(), ""),
        ("Transfer-Encoding: chunked", chunked(&long, 10_000), ""),
        ("Content-Length: 12\r\nExpect: 100-continue", Vec::new(), ""),
    ];

    for route in ["POST /v1/unknown", "PUT /v1/files", "POST /v1/files"] {
        for (framing, body, expected) in &cases {
            let head = format!("{route} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n");
            let (refusal, next) = next_on_the_connection(app.address, &head, body).await;

            assert!(refusal.starts_with("HTTP/1.1 40"), "{route} {framing}: {refusal}");
            assert_eq!(refusal.contains("connection: close"), expected.is_empty(), "{route} {framing}: {refusal}");
            assert_eq!(next, *expected, "{route} {framing}: {refusal}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_not_asked_for() {
    let app = TestApp::with(&["--max-file-bytes", "16MiB", "--max-batch-bytes", "16MiB"]).await;
    let cases = [
        ("/v1/files", "multipart/form-data; boundary=b", 18 << 20, "File is too large."),
        ("/v1/batches", "application/json", 18 << 20, "The requests are too large"),
    ];

    for (path, content_type, length, said) in cases {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        let text = until_closed(open(app.address, head).await).await;

        assert!(text.starts_with("HTTP/1.1 400") && text.contains(said), "{path}: {text}");
    }
}

//! The API by TLS: the same limits hold, also for clients that begin TLS and go no further.

use std::time::Duration;

use batchwright::api::ServerLimits;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::certificates::OwnCertificate;
use crate::common::eventually::until;
use crate::common::raw_http::{get, open, rest_of};
use crate::common::test_app::TestApp;

const PATIENCE: Duration = Duration::from_mins(1);
const SOON: Duration = Duration::from_millis(300);
const HTTP1: &[&str] = &["http/1.1"];

/// A service with a certificate of its own.
async fn secured(limits: ServerLimits) -> (TestApp, OwnCertificate, TempDir) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let certificate = OwnCertificate::write(directory.path());
    let flags = certificate.flags();
    let app = TestApp::within(limits, &flags.each_ref().map(String::as_str)).await;
    (app, certificate, directory)
}

fn last(path: &str) -> String {
    get(path).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

/// Asks by TLS, and reads to the end of the connection.
async fn ask(app: &TestApp, certificate: &OwnCertificate, request: &str) -> String {
    let mut connection = certificate.connect(app.address, HTTP1).await.expect("the server has TLS");
    connection.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.expect("the server answers to the end");
    String::from_utf8(answer).expect("the answer is text")
}

#[tokio::test]
async fn answers_come_by_tls_and_by_nothing_else() {
    let (app, certificate, _directory) = secured(ServerLimits::default()).await;

    for path in ["/healthz", "/v1/batches", "/metrics", "/dashboard"] {
        let answer = ask(&app, &certificate, &last(path)).await;

        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{answer}");
    }
    let plain = rest_of(open(app.address, get("/healthz")).await).await;
    assert!(!plain.contains("HTTP/1.1"), "{plain:?}");
}

#[tokio::test]
async fn http_1_is_the_only_protocol() {
    let (app, certificate, _directory) = secured(ServerLimits::default()).await;

    let either = certificate.connect(app.address, &["h2", "http/1.1"]).await.expect("one of them is known");
    assert_eq!(either.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let without = certificate.connect(app.address, &[]).await.expect("none is needed");
    assert_eq!(without.get_ref().1.alpn_protocol(), None);
    certificate.connect(app.address, &["h2"]).await.expect_err("it is not known");
}

#[tokio::test]
async fn who_does_not_end_the_handshake_is_cut() {
    let (app, certificate, _directory) = secured(ServerLimits { head: SOON, ..ServerLimits::default() }).await;
    // The head of a handshake record that says that more follows.
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let half_open = open(app.address, sent).await;

        let answer = timeout(PATIENCE, rest_of(half_open)).await.expect("the server closes the connection");

        assert_eq!(answer, "", "{sent:?}");
    }
    assert!(ask(&app, &certificate, &last("/healthz")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_in_the_handshake_make_room_for_others() {
    let never = Duration::from_hours(1);
    let limits = ServerLimits { connections: 4, head: never, new: Duration::ZERO, ..ServerLimits::default() };
    let (app, certificate, _directory) = secured(limits).await;
    let mut half_open = Vec::new();
    for _ in 0..12 {
        half_open.push(open(app.address, b"\x16\x03\x01").await);
    }

    let answer = timeout(PATIENCE, ask(&app, &certificate, &last("/healthz"))).await.expect("there is room");

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let closed = |connection: &TcpStream| matches!(connection.try_read(&mut [0; 8]), Ok(0));
    until("the others to be closed", || half_open.iter().filter(|connection| closed(connection)).count() >= 8).await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_cut() {
    // Long enough for the downloads that are read.
    let unread = Duration::from_secs(2);
    let (app, certificate, _directory) = secured(ServerLimits { unread, ..ServerLimits::default() }).await;
    let content = "x".repeat(8 << 20);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--b\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{content}\r\n--b--\r\n"
    );
    let upload = format!(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: multipart/form-data; boundary=b\r\n\r\n{form}",
        form.len()
    );
    let uploaded = ask(&app, &certificate, &upload).await;
    let (_, id) = uploaded.split_once("\"id\":\"").unwrap_or_else(|| panic!("the file is not taken: {uploaded:?}"));
    let path = format!("/v1/files/{}/content", &id[..id.find('"').expect("a text ends")]);
    let whole = ask(&app, &certificate, &last(&path)).await;
    assert!(whole.ends_with(&content), "all of it comes");

    let mut connection = certificate.connect(app.address, HTTP1).await.expect("the server has TLS");
    connection.write_all(get(&path).as_bytes()).await.expect("the server reads");
    connection.read_exact(&mut [0; 1024]).await.expect("the download begins");

    // Nothing is read until the server has given up: only then the socket cannot be written any more.
    until("the server to close the connection", || connection.get_ref().0.try_write(b"x").is_err()).await;
}

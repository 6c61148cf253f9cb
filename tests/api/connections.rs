//! Connections: their number, how long they may be slow, what hyper refuses by itself, and their end.

use std::time::Duration;

use batchwright::api::ServerLimits;
use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::common::builders::rows;
use crate::common::eventually::{eventually, until};
use crate::common::raw_http::{begun_upload, exchange, form, get, open, rest_of, upload_head, usual_parts};
use crate::common::test_app::TestApp;

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Shorter than any test's patience.
const SOON: Duration = Duration::from_millis(300);
/// Longer than any test's patience.
const NEVER: Duration = Duration::from_hours(1);
const PATIENCE: Duration = Duration::from_mins(1);

fn patient() -> ServerLimits {
    ServerLimits { head: NEVER, idle: NEVER, body: NEVER, unread: NEVER, ..ServerLimits::default() }
}

/// What comes until the server closes the connection, which it has to.
pub async fn until_closed(connection: TcpStream) -> String {
    timeout(PATIENCE, rest_of(connection)).await.expect("the server closes the connection")
}

/// Reads an answer on a connection that stays open; nothing if it has ended.
pub async fn answer(connection: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    // A connection that was reset has no answer.
    let length = connection.read(&mut bytes).await.unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// A download that its client begins and does not read.
async fn unread_download(app: &TestApp, file_id: &str) -> TcpStream {
    let mut connection = open(app.address, get(&format!("/v1/files/{file_id}/content"))).await;
    connection.read_exact(&mut [0; 1024]).await.expect("the download begins");
    connection
}

#[tokio::test]
async fn who_sends_no_whole_head_is_cut() {
    let app = TestApp::within(ServerLimits { head: SOON, ..patient() }, &[]).await;

    for sent in ["", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n", "POST /v1/fi"] {
        let text = until_closed(open(app.address, sent).await).await;

        assert_eq!(text, "", "{sent}");
    }
    let mut drip = open(app.address, "GET /healthz HTTP/1.1\r\nX: ").await;
    until("the server to close the connection", || drip.try_write(b"x").is_err()).await;
    drip.write_all(b"x").await.expect_err("it is closed");
}

#[tokio::test]
async fn a_connection_that_is_not_used_again_is_closed() {
    let app = TestApp::within(ServerLimits { idle: SOON, ..patient() }, &[]).await;
    let connection = open(app.address, get("/healthz")).await;

    let text = until_closed(connection).await;

    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let limits = ServerLimits { head: SOON, ..patient() };
    let app = TestApp::within(limits, &[]).await;
    let mut idle = open(app.address, get("/healthz")).await;
    answer(&mut idle).await;
    let cut = open(app.address, "").await;

    // Begun later and timed the same, were it timed.
    until_closed(cut).await;
    idle.write_all(get("/healthz").as_bytes()).await.expect("it is open");

    assert!(answer(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_stops_is_answered_with_408() {
    let app = TestApp::within(ServerLimits { body: SOON, ..patient() }, &[]).await;
    let batch = "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{".into();

    for sent in [begun_upload(), batch] {
        let text = until_closed(open(app.address, &sent).await).await;

        assert!(text.starts_with("HTTP/1.1 408"), "{text}");
        assert!(text.contains("The body of the request stopped"), "{text}");
        assert!(text.contains("x-request-id: req_"), "{text}");
    }
    until("what was written to be removed", || app.blobs().is_empty()).await;
}

#[tokio::test]
async fn a_body_of_single_bytes_is_too_slow_as_well() {
    let app = TestApp::within(ServerLimits { body: SOON, ..patient() }, &[]).await;
    let mut connection = open(app.address, begun_upload()).await;

    let answered = eventually("the server to have enough", async || {
        let mut bytes = vec![0; 4096];
        match connection.try_read(&mut bytes) {
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(_) => connection.write_all(b"\n").await.err().map(|error| error.to_string()),
        }
    });

    assert!(answered.await.starts_with("HTTP/1.1 408"));
}

#[tokio::test]
async fn a_download_that_nobody_reads_is_cut() {
    let limits = ServerLimits { connections: 2, unread: SOON, ..patient() };
    let app = TestApp::within(limits, &[]).await;
    let file_id = app.upload(vec![b'\n'; 50 << 20]).await;
    let unread = [unread_download(&app, &file_id).await, unread_download(&app, &file_id).await];

    // Both places are taken by answers until one of them is cut.
    let answer = exchange(app.address, HEALTH).await;

    assert_eq!(answer.status, 200);
    drop(unread);
}

#[tokio::test]
async fn a_download_that_is_read_slowly_comes_whole() {
    const PIECE: usize = 64 << 10;
    let limits = ServerLimits { unread: Duration::from_secs(1), ..patient() };
    let app = TestApp::within(limits, &[]).await;
    let file_id = app.upload(vec![b'\n'; 30 << 20]).await;
    let mut connection = open(app.address, get(&format!("/v1/files/{file_id}/content"))).await;
    let (mut came, begun) = (0, Instant::now());

    while came < 30 << 20 {
        sleep(Duration::from_millis(10)).await;
        let mut piece = vec![0; PIECE];
        let length = connection.read(&mut piece).await.expect("it is not cut");
        assert_ne!(length, 0, "it ended after {came} bytes");
        came += length;
    }

    assert!(begun.elapsed() > 2 * limits.unread, "it was slow");
}

#[tokio::test]
async fn refused_uploads_that_are_slow_take_no_place_for_long() {
    let app = TestApp::within(ServerLimits { connections: 4, uploads: 1, ..patient() }, &[]).await;
    let mut uploads = vec![open(app.address, begun_upload()).await];
    until("it to be taken in", || app.blobs().len() == 1).await;
    uploads.extend(join_all((0..20).map(|_| open(app.address, begun_upload()))).await);

    let answer = exchange(app.address, HEALTH).await;

    assert_eq!(answer.status, 200);
    for refused in uploads.split_off(1) {
        let text = until_closed(refused).await;
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    }
    uploads[0].write_all(b"\n").await.expect("it is open");
}

#[tokio::test]
async fn an_upload_is_refused_before_its_body_is_asked_for() {
    let app = TestApp::within(ServerLimits { uploads: 1, ..patient() }, &[]).await;
    let first = open(app.address, begun_upload()).await;
    until("it to be taken in", || app.blobs().len() == 1).await;
    let head = upload_head("multipart/form-data; boundary=b", "Content-Length: 100\r\nExpect: 100-continue");

    let text = until_closed(open(app.address, head).await).await;

    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    drop(first);
}

#[tokio::test]
async fn a_new_connection_has_its_place_until_its_first_request_may_have_come() {
    for (new, is_kept) in [(NEVER, true), (Duration::ZERO, false)] {
        let app = TestApp::within(ServerLimits { connections: 2, new, ..patient() }, &[]).await;
        let mut used = open(app.address, get("/healthz")).await;
        answer(&mut used).await;
        let mut fresh = open(app.address, "").await;
        // Both take part in the choice once the second has its place, which the third waits for.
        let mut third = open(app.address, get("/healthz")).await;
        assert!(answer(&mut third).await.starts_with("HTTP/1.1 200"));
        // The one with an answer waited for a request longer, and is gone. The next is the choice.
        assert_eq!(until_closed(used).await, "");
        let mut fourth = open(app.address, get("/healthz")).await;
        assert!(answer(&mut fourth).await.starts_with("HTTP/1.1 200"));

        fresh.write_all(get("/healthz").as_bytes()).await.expect("the kernel takes it");
        assert_eq!(answer(&mut fresh).await.starts_with("HTTP/1.1 200"), is_kept);
    }
}

#[tokio::test]
async fn silent_connections_make_room_for_others() {
    let app = TestApp::within(ServerLimits { connections: 4, ..patient() }, &[]).await;
    let silent = join_all((0..20).map(|_| open(app.address, ""))).await;

    for _ in 0..20 {
        let answer = exchange(app.address, HEALTH).await;

        assert_eq!(answer.status, 200);
    }
    drop(silent);
}

#[tokio::test]
async fn a_connection_that_is_being_answered_gives_up_its_place_to_nobody() {
    let app = TestApp::within(ServerLimits { connections: 3, uploads: 3, ..patient() }, &[]).await;
    let mut upload = open(app.address, begun_upload()).await;
    until("it to be taken in", || app.blobs().len() == 1).await;

    for _ in 0..10 {
        let answer = exchange(app.address, HEALTH).await;
        assert_eq!(answer.status, 200);
    }

    upload.write_all(b"\n").await.expect("it is open");
    assert_eq!(app.blobs().len(), 1);
}

#[tokio::test]
async fn an_upload_too_many_is_told_to_come_again() {
    let app = TestApp::within(ServerLimits { uploads: 1, ..patient() }, &[]).await;
    let first = open(app.address, begun_upload()).await;
    until("it to be taken in", || app.blobs().len() == 1).await;

    let answer = app.try_upload(rows(1)).await;

    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert_eq!(answer.json()["error"]["type"], "server_error");
    drop(first);
    eventually("its place to be free", async || (app.try_upload(rows(1)).await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn what_reaches_no_handler_is_refused_in_the_envelope() {
    let app = TestApp::start().await;
    let long = |length: usize| "x".repeat(length);
    let headers = "X: x\r\n".repeat(200);
    let cases = [
        (format!("GET /v1/{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", long(33_000)), 414, "32 KiB"),
        (format!("GET /v1/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", long(66_000)), 414, "32 KiB"),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", long(300_000)), 431, "128 KiB"),
        (format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"), 431, "at most 100"),
        ("GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(), 400, "not valid HTTP/1.1"),
        ("GET /healthz HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400, "not valid HTTP/1.1"),
        ("POST /v1/files HTTP/1.1\r\nHost: ::1\r\nContent-Length: x\r\n\r\n".to_owned(), 400, "not valid HTTP/1.1"),
        ("\u{0}\u{1}\r\n\r\n".to_owned(), 400, "not valid HTTP/1.1"),
    ];

    for (request, status, said) in cases {
        let answer = exchange(app.address, request.as_bytes()).await;
        let request = &request[..request.len().min(60)];

        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error", "{request}");
        assert!(answer.text.contains(said), "{request} {answer:?}");
        for header in ["x-request-id: req_", "content-type: application/json", "date: "] {
            assert!(answer.text.contains(header), "{request} {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_behind_an_answer_has_the_envelope_too() {
    let app = TestApp::start().await;
    let mut connection = open(app.address, get("/healthz")).await;
    assert!(answer(&mut connection).await.starts_with("HTTP/1.1 200"));

    connection.write_all(b"no request\r\n\r\n").await.expect("it is open");

    let text = until_closed(connection).await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("not valid HTTP/1.1"), "{text}");
}

#[tokio::test]
async fn a_stop_ends_slow_clients_and_leaves_no_unfinished_blob() {
    let limits = ServerLimits { farewell: SOON, ..patient() };
    let app = TestApp::within(limits, &["--grace", "1h"]).await;
    let file_id = app.upload(vec![b'\n'; 50 << 20]).await;
    let address = app.address;
    let uploads = join_all((0..20).map(|_| open(address, begun_upload()))).await;
    let heads = join_all((0..5).map(|_| open(address, "GET /healthz HTTP/1.1\r\n"))).await;
    let silent = join_all((0..5).map(|_| open(address, ""))).await;
    let batch = open(address, "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{").await;
    let unread = unread_download(&app, &file_id).await;
    until("all uploads to be taken in", || app.blobs().len() == 22).await;

    let stopped = timeout(PATIENCE, app.stop()).await.expect("nobody is waited for");

    assert_eq!(stopped.blobs().len(), 2, "the file and its row index: {:?}", stopped.blobs());
    for upload in uploads {
        let text = until_closed(upload).await;
        assert!(text.starts_with("HTTP/1.1 503"), "{text}");
        assert!(text.contains("retry-after: 1"), "{text}");
    }
    let batch = until_closed(batch).await;
    assert!(batch.starts_with("HTTP/1.1 503"), "{batch}");
    drop((heads, silent, unread));
}

#[tokio::test]
async fn an_upload_that_goes_on_after_the_stop_is_still_taken_in() {
    let app = TestApp::within(ServerLimits { farewell: NEVER, ..patient() }, &["--grace", "1h"]).await;
    let address = app.address;
    let body = form("b", &usual_parts(rows(1).as_bytes()));
    let mut request = upload_head("multipart/form-data; boundary=b", &format!("Content-Length: {}", body.len()));
    request.extend(body);
    let (begin, end) = request.split_at(request.len() - 20);
    let mut upload = open(address, begin).await;
    until("it to be taken in", || app.blobs().len() == 1).await;

    let stopping = app.begin_to_stop();
    eventually("the server to close", async || TcpStream::connect(address).await.err()).await;
    upload.write_all(end).await.expect("it is open");

    let text = until_closed(upload).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    timeout(PATIENCE, stopping.ended()).await.expect("it was the last");
}

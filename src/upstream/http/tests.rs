//! Bounds and failures of calls over HTTP.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use futures::future::join_all;
use futures::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const KIB: usize = 1 << 10;

/// A client with little room, of a server that answers with as many bytes as it is told: how they are sent, and
/// with which status.
async fn client(budget: AnswerBudget, timeout: Duration) -> ReqwestHttpClient {
    let answer = async |body: Bytes| {
        let text = str::from_utf8(&body).expect("a text");
        let (status, kib) = text.split_once(' ').expect("two words");
        let bytes = "x".repeat(kib.trim_start_matches('~').parse::<usize>().expect("a number") * KIB);
        let body = match kib.strip_prefix('~') {
            None => Body::from(bytes),
            Some(_) => Body::from_stream(stream::iter([Ok::<_, Infallible>(bytes)])),
        };
        axum::http::Response::builder().status(status.parse::<u16>().expect("a status")).body(body).expect("valid")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("an address")).parse().expect("a URL");
    let server = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, server).await });
    ReqwestHttpClient { budget, ..client_at(base_url, timeout) }
}

fn client_at(base_url: Url, timeout: Duration) -> ReqwestHttpClient {
    let settings = UpstreamSettings {
        base_url,
        headers: HeaderMap::new(),
        tls: None,
        timeout,
        stall_timeout: timeout,
        max_idle: 8,
    };
    ReqwestHttpClient::new(&settings, Clock::System).expect("plain settings")
}

fn call(what: String) -> Call {
    Call { endpoint: Endpoint::ChatCompletions, model: "m".into(), key: "k".to_owned(), body: what.into(), file: None }
}

#[tokio::test]
async fn large_answers_wait_for_room_and_all_come() {
    let budget = AnswerBudget::new(4 * KIB, 64 * KIB, 256 * KIB);
    let client = client(budget, Duration::from_mins(1)).await;
    let sent = |no: usize| format!("200 {}{}", ["", "~"][no % 2], [1, 3, 5, 40, 64][no % 5]);

    let ask = async |no: usize| {
        let answer = client.post(call(sent(no))).await.expect("an answer");
        // Others get room meanwhile, if there is any.
        tokio::task::yield_now().await;
        assert_eq!(answer.body.len(), [1, 3, 5, 40, 64][no % 5] * KIB);
    };
    join_all((0..200).map(ask)).await;
}

#[tokio::test]
async fn waiting_for_room_is_not_the_upstreams_time() {
    let budget = AnswerBudget::new(4 * KIB, 64 * KIB, 128 * KIB);
    let client = client(budget, Duration::from_secs(2)).await;
    let first = client.post(call("200 64".to_owned())).await.expect("an answer");

    let mut waiting = Box::pin(client.post(call("200 64".to_owned())));
    let waited = tokio::time::timeout(Duration::from_secs(3), &mut waiting).await;

    assert!(waited.is_err(), "there is no room as long as the first answer lives");
    assert_eq!(client.post(call("200 3".to_owned())).await.expect("an answer").body.len(), 3 * KIB, "a small one");
    drop(first);
    assert_eq!(waiting.await.expect("an answer").body.len(), 64 * KIB);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_and_an_error_is_cut_off() {
    let budget = AnswerBudget::new(4 * KIB, 64 * KIB, 128 * KIB);
    let client = client(budget, Duration::from_mins(1)).await;
    let too_large = Err(UpstreamError::TooLarge { limit: 64 * KIB });
    let cases = [
        ("200 64", Ok(64)),
        ("200 ~64", Ok(64)),
        ("200 65", too_large.clone()),
        ("200 ~65", too_large),
        ("503 4", Ok(4)),
        ("503 65", Ok(4)),
        ("503 ~65", Ok(4)),
    ];
    for (sent, expected) in cases {
        let answer = client.post(call(sent.to_owned())).await.map(|answer| answer.body.len() / KIB);
        assert_eq!(answer, expected, "{sent}");
    }
}

/// A client of a server that answers each connection with these bytes, and then closes it or not.
async fn client_of_bytes(bytes: &'static str, closes: bool) -> ReqwestHttpClient {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("an address")).parse().expect("a URL");
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let mut head = [0; 1024];
            assert_ne!(connection.read(&mut head).await.expect("a request"), 0);
            connection.write_all(bytes.as_bytes()).await.expect("it is read");
            open.extend((!closes).then_some(connection));
        }
    });
    client_at(base_url, Duration::from_millis(if closes { 60_000 } else { 300 }))
}

#[tokio::test]
async fn a_failure_says_what_broke_and_how_much_of_the_answer_had_come() {
    const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    let closed = [
        ("", "upstream broke: connection closed before message completed, before its answer began."),
        (SIZED, "upstream broke: end of file before message length reached, after 3 bytes of its answer."),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", ", after the head of its answer."),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n{}", "broke: the head of its answer cannot be read: invalid HTTP header"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "upstream broke: it answered with status 101.",
        ),
    ];
    for (bytes, expected) in closed {
        let error = client_of_bytes(bytes, true).await.post(call(String::new())).await.expect_err("it broke");
        assert!(matches!(error, UpstreamError::Broken(_)) && error.to_string().contains(expected), "{bytes}: {error}");
    }
    let open = [("", "before its answer began."), (SIZED, "after 3 bytes of its answer.")];
    for (bytes, expected) in open {
        let error = client_of_bytes(bytes, false).await.post(call(String::new())).await.expect_err("it timed out");
        let expected = format!("The upstream did not answer in time: it had 300ms, which ended {expected}");
        assert_eq!(error.to_string(), expected, "{bytes}");
    }
    let nowhere = client_at("http://127.0.0.1:9/v1".parse().expect("a URL"), Duration::from_mins(1));
    let error = nowhere.post(call(String::new())).await.expect_err("nobody listens");
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn silence_counts_once_an_answer_has_begun() {
    // The limit of silence in milliseconds, the pieces that come, each after a pause, and whether they are all.
    type Answer = (u64, &'static [&'static str], bool);
    const PAUSE: Duration = Duration::from_millis(500);
    const WHOLE: Duration = Duration::from_secs(6);
    let cases: [(Answer, Result<(), &str>); 5] = [
        ((300, &["t"], false), Err("it sent nothing for 300ms after 1 bytes of its answer")),
        ((2_000, &["t", "r", "u", "e", " ", "\n"], true), Ok(())),
        ((300, &[], false), Err("it had 6s, which ended before its answer began")),
        // Servers and proxies send white space while they work.
        ((300, &["\n", " "], false), Err("it had 6s, which ended after 2 bytes of its answer")),
        ((60_000, &["t"], false), Err("it had 6s, which ended after 1 bytes of its answer")),
    ];
    let each = cases.map(|((stall, pieces, are_all), expected)| async move {
        let client = client_at("http://127.0.0.1:9/v1".parse().expect("a URL"), WHOLE);
        let client = ReqwestHttpClient { stall_timeout: Duration::from_millis(stall), ..client };
        let received = AnswerProgress::default();
        let answer = pin!(async {
            for piece in pieces {
                tokio::time::sleep(PAUSE).await;
                received.note(piece.as_bytes());
            }
            if are_all { Ok(()) } else { std::future::pending().await }
        });

        let ended = client.in_time(Instant::now() + WHOLE, &received, answer).await;

        assert_eq!(ended, expected.map_err(|why| UpstreamError::Timeout(why.to_owned())), "{pieces:?}");
    });
    join_all(each).await;
}

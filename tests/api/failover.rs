//! Several servers with one model, of which one is away, hangs or is at fault.

use std::time::Duration;

use serde_json::json;

use crate::common::builders::{file, line};
use crate::common::eventually::within;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::sharing::rows_of;
use crate::upstreams::{app_of, list_of, row_calls, table, warnings};

const NO_RETRIES: [&str; 2] = ["--max-retries", "0"];

#[tokio::test]
async fn rows_of_a_server_that_is_away_go_to_another_at_once() {
    // Each way to be away, and how many calls it costs at most.
    type Away = fn() -> FakeUpstream;
    let answering = |status: u16| {
        let upstream = FakeUpstream::start();
        upstream.reply(move |_| Reply::error(status));
        upstream
    };
    let cases: [(&str, Away, Option<u16>); 4] = [
        ("down", FakeUpstream::down, None),
        ("503", FakeUpstream::start, Some(503)),
        ("401", FakeUpstream::start, Some(401)),
        ("429", FakeUpstream::start, Some(429)),
    ];
    for (what, away, status) in cases {
        let away = status.map_or_else(away, answering);
        let b = FakeUpstream::start();
        let tables = [table("away", &away, "models = ['m']"), table("b", &b, "models = ['m']")];
        let app = app_of(&tables, &NO_RETRIES).await;

        let id = app.submit(rows_of("m", 400)).await;
        let batch = app.wait_for(&id, "completed").await;

        assert_eq!(batch["request_counts"], json!({ "total": 400, "completed": 400, "failed": 0 }), "{what}");
        assert_eq!(row_calls(&b).len(), 400, "{what}: no row is called twice where it is answered");
        assert!(row_calls(&away).len() < 40, "{what}: {}", row_calls(&away).len());
        let warnings = warnings(&app).await;
        assert!(warnings.iter().all(|text| text.contains("'away'")), "{what}: {warnings:?}");
    }
}

#[tokio::test]
async fn a_row_that_failed_at_one_server_is_tried_at_another() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    a.reply(|_| Reply::error(500));
    let tables = [table("a", &a, "models = ['m']"), table("b", &b, "models = ['m']")];
    let app = app_of(&tables, &["--max-retries", "1"]).await;

    let results = app.run(rows_of("m", 30)).await;

    assert_eq!(results.output.len(), 30, "one further attempt is enough for each");
}

#[tokio::test]
async fn a_server_that_hangs_does_not_take_the_calls_of_one_that_answers() {
    let (hangs, b) = (FakeUpstream::start(), FakeUpstream::start());
    hangs.reply(|_| Reply::ok().held());
    let tables = [table("hangs", &hangs, "models = ['m']"), table("b", &b, "models = ['m']")];
    let app = app_of(&tables, &["--max-retries", "0", "--max-concurrency", "64", "--concurrency", "fixed"]).await;

    let id = app.submit(rows_of("m", 1000)).await;
    within(Duration::from_secs(60), "the other server's answers", async || {
        (row_calls(&b).len() >= 1000 - 64).then_some(())
    })
    .await;
    // Before the other's first answer, each has half of the calls.
    assert!(hangs.running() <= 32, "{}", hangs.running());

    hangs.release();
    app.wait_for_completed(&id, 1000).await;
}

#[tokio::test]
async fn what_only_one_of_two_servers_says_of_a_row_fails_no_row() {
    let unknown = r#"{"error":{"message":"The model `m` does not exist.","code":"model_not_found"}}"#;
    let cases: [(u16, &'static str); 7] = [
        (404, unknown),
        (404, r#"{"detail":"Not Found"}"#),
        (400, unknown),
        (422, "{}"),
        (403, "{}"),
        (405, ""),
        (200, "<html>It works!</html>"),
    ];
    for (status, body) in cases {
        let (bad, good) = (FakeUpstream::start(), FakeUpstream::start());
        // It shows its models, so that a refusal would be the row's.
        bad.reply(move |call| if call.path == "/v1/models" { list_of(&["m"]) } else { Reply::new(status, body) });
        good.reply(|_| Reply::ok().after(Duration::from_millis(5)));
        let tables = [table("bad", &bad, "models = ['m']"), table("good", &good, "models = ['m']")];
        let app = app_of(&tables, &NO_RETRIES).await;

        let id = app.submit(rows_of("m", 300)).await;
        let batch = app.wait_for(&id, "completed").await;

        let counts = json!({ "total": 300, "completed": 300, "failed": 0 });
        assert_eq!(batch["request_counts"], counts, "{status} {body}");
        assert!(row_calls(&bad).len() < 60, "{status} {body}: {} calls of a bad server", row_calls(&bad).len());
    }
}

#[tokio::test]
async fn a_row_that_both_servers_refuse_is_an_error_line() {
    let (a, b) = (FakeUpstream::start(), FakeUpstream::start());
    for upstream in [&a, &b] {
        upstream.reply(|call| if call.is_of("m-3") { Reply::error(404) } else { Reply::ok() });
    }
    let tables = [table("a", &a, "models = ['m']"), table("b", &b, "models = ['m']")];
    let app = app_of(&tables, &NO_RETRIES).await;

    let results = app.run(rows_of("m", 40)).await;

    assert_eq!((results.output.len(), results.errors.len()), (39, 1));
    assert_eq!(results.errors[0]["response"]["status_code"], 404);
}

#[tokio::test]
async fn servers_with_and_without_the_responses_api_share_its_rows() {
    let (without, with) = (FakeUpstream::start(), FakeUpstream::start());
    without.reply(|call| match &*call.path {
        "/v1/responses" => Reply::new(404, r#"{"detail":"Not Found"}"#),
        _ => Reply::chat("Hello"),
    });
    with.reply(|_| Reply::new(200, r#"{"id":"r","object":"response","status":"completed","output":[]}"#));
    let tables = [table("without", &without, "models = ['m']"), table("with", &with, "models = ['m']")];
    let app = app_of(&tables, &NO_RETRIES).await;

    let row = |no: usize| line(&format!("r-{no}")).url("/v1/responses").body(r#"{"model":"m","input":"Hi"}"#);
    let input = app.upload(file((0..40).map(row))).await;
    let id = app.create_batch_for(&input, "/v1/responses").await;
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["request_counts"], json!({ "total": 40, "completed": 40, "failed": 0 }));
    let of = |upstream, path| row_calls(upstream).iter().filter(|call| call.path == path).count();
    assert_eq!(of(&without, "/v1/chat/completions") + of(&with, "/v1/responses"), 40);
    assert!(of(&without, "/v1/chat/completions") > 0, "through the API that it has");
}

//! Failures that may pass are tried again, each row is delivered once, and what does not pass is an error line.

use std::time::Duration;

use serde_json::json;

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};

#[tokio::test]
async fn a_request_refused_with_429_is_tried_again_when_asked_to_and_delivered_once() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| match call.attempt {
        0 => Reply::error(429).header("retry-after", "1"),
        _ => Reply::ok(),
    });

    let results = app.run(rows(1)).await;

    assert_eq!(results.output_ids(), ["row-0"]);
    assert_eq!(results.errors.len(), 0);
    let calls = app.upstream.calls();
    assert_eq!(calls.len(), 2);
    let waited = calls[1].arrived - calls[0].arrived;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn a_row_that_waits_for_another_attempt_does_not_hold_up_others() {
    let app = TestApp::with(&["--max-concurrency", "1"]).await;
    app.upstream.reply(|call| match (call.is_of("row-0"), call.attempt) {
        (true, 0) => Reply::error(500).header("retry-after", "2"),
        _ => Reply::ok(),
    });

    let results = app.run(rows(3)).await;

    assert_eq!(results.output.len(), 3);
    let calls = app.upstream.calls();
    let of_row_0: Vec<_> = (0..calls.len()).filter(|position| calls[*position].is_of("row-0")).collect();
    assert_eq!(of_row_0, [0, 3]);
}

#[tokio::test]
async fn a_server_error_is_tried_again_until_the_retries_are_used_up() {
    let app = TestApp::with(&["--max-retries", "2"]).await;
    app.upstream.reply(|_| Reply::error(500).header("x-request-id", "upstream-1"));

    let results = app.run(rows(1)).await;

    assert_eq!(app.upstream.calls().len(), 3);
    let line = &results.errors[0];
    let body = json!({ "error": { "message": "No.", "type": "server_error", "param": null, "code": null } });
    assert_eq!(line["custom_id"], "row-0");
    assert_eq!(line["response"], json!({ "status_code": 500, "request_id": "upstream-1", "body": body }));
    assert!(line["error"].is_null(), "{line}");
}

#[tokio::test]
async fn every_status_that_may_pass_is_tried_again() {
    let app = TestApp::start().await;
    let statuses = [408, 425, 429, 500, 502, 503, 504, 529];
    app.upstream.reply(move |call| {
        let of_row = |row: usize| call.is_of(&format!("row-{row}"));
        match (0..statuses.len()).find(|row| of_row(*row)) {
            Some(row) if call.attempt == 0 => Reply::error(statuses[row]),
            _ => Reply::ok(),
        }
    });

    let results = app.run(rows(statuses.len())).await;

    assert_eq!(results.output.len(), statuses.len());
    assert_eq!(app.upstream.calls().len(), statuses.len() * 2);
}

#[tokio::test]
async fn a_status_that_will_not_change_is_not_tried_again() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| Reply::error(if call.is_of("row-0") { 400 } else { 422 }));

    let results = app.run(rows(2)).await;

    assert_eq!(app.upstream.calls().len(), 2);
    let mut statuses: Vec<_> = results.errors.iter().map(|line| line["response"]["status_code"].as_u64()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [Some(400), Some(422)]);
}

#[tokio::test]
async fn further_statuses_are_tried_again_if_configured() {
    let app = TestApp::with(&["--retry-statuses", "404,409"]).await;
    app.upstream.reply(|call| if call.attempt == 0 { Reply::error(404) } else { Reply::ok() });

    let results = app.run(rows(1)).await;

    assert_eq!(results.output.len(), 1);
}

#[tokio::test]
async fn an_upstream_that_comes_up_late_answers_everything() {
    let mut app = Stopped::new(FakeUpstream::down()).start(&["--max-retries", "0"]).await;

    let id = app.submit(rows(3)).await;
    app.wait_for_status(&id, "in_progress").await;
    app.upstream.listen();
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["request_counts"], json!({ "total": 3, "completed": 3, "failed": 0 }));
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_request_timeout() {
    let app = TestApp::with(&["--request-timeout", "300ms", "--max-retries", "1"]).await;
    app.upstream.reply(|_| Reply::ok().held());

    let results = app.run(rows(1)).await;

    assert_eq!(results.error_codes(), ["request_timeout"]);
    assert_eq!(app.upstream.calls().len(), 2);
    until("both connections to be closed", || app.upstream.aborted() == 2).await;
}

#[tokio::test]
async fn every_attempt_carries_the_id_of_the_result_line() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| if call.attempt < 2 { Reply::error(503) } else { Reply::ok() });

    let results = app.run(rows(1)).await;

    let id = results.output[0]["id"].as_str().expect("an id");
    let keys: Vec<String> = app.upstream.calls().iter().map(|call| call.key().to_owned()).collect();
    assert_eq!(keys, [id; 3]);
}

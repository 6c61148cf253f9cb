//! Batches that end early: called off, or out of time. Every row has exactly one line all the same.

use std::time::Duration;

use batchwright::domain::time::Clock;
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::error;
use crate::common::eventually::{until, within};
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

const WINDOWS: [&str; 2] = ["--completion-windows", "24h,1s,4s"];

/// Answers `row-0` and holds every other row.
fn all_but_the_first_are_held(app: &TestApp) {
    app.upstream.reply(|call| if call.is_of("row-0") { Reply::ok() } else { Reply::ok().held() });
}

#[tokio::test]
async fn a_cancel_aborts_calls_in_flight_and_leaves_one_line_for_each_row() {
    let app = TestApp::with(&["--max-concurrency", "3"]).await;
    all_but_the_first_are_held(&app);
    let input = rows(10);
    let id = app.submit(input.clone()).await;
    app.wait_for_completed(&id, 1).await;
    until("three calls to run", || app.upstream.running() == 3).await;

    let cancelling = app.cancel(&id).await.ok();
    within(Duration::from_secs(1), "the calls to be aborted", async || (app.upstream.aborted() == 3).then_some(()))
        .await;
    let batch = app.wait_for(&id, "cancelled").await;

    assert_eq!(cancelling["status"], "cancelling");
    assert!(cancelling["cancelling_at"].is_i64() && cancelling["output_file_id"].is_null(), "{cancelling}");
    assert_eq!(batch["request_counts"], json!({ "total": 10, "completed": 1, "failed": 0 }));
    assert_eq!(batch["finalizing_at"], Value::Null);
    assert!(batch["cancelled_at"].is_i64(), "{batch}");
    let verdict = app.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    let results = app.results(&batch).await;
    assert_eq!(results.output_ids(), ["row-0"]);
    assert_eq!(results.error_codes(), ["batch_cancelled"; 9]);
    assert_eq!(app.upstream.calls().len(), 4);
}

#[tokio::test]
async fn a_batch_may_be_called_off_twice() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;

    let first = app.cancel(&id).await.ok();
    let second = app.cancel(&id).await.ok();
    app.wait_for(&id, "cancelled").await;
    let third = app.cancel(&id).await.ok();

    assert_eq!(second["cancelling_at"], first["cancelling_at"]);
    assert_eq!(third["status"], "cancelled");
}

#[tokio::test]
async fn a_batch_called_off_while_it_is_validated_leaves_one_line_for_each_row() {
    let app = TestApp::with(&["--role", "api"]).await;
    let input = rows(500);
    let id = app.submit(input.clone()).await;
    let cancelling = app.cancel(&id).await.ok();

    let app = app.stop().await.start(&[]).await;
    let batch = app.wait_for(&id, "cancelled").await;

    assert_eq!(cancelling["request_counts"], json!({ "total": 0, "completed": 0, "failed": 0 }));
    assert_eq!(batch["request_counts"], json!({ "total": 500, "completed": 0, "failed": 0 }));
    assert_eq!((&batch["output_file_id"], &batch["in_progress_at"]), (&Value::Null, &Value::Null));
    assert_eq!(batch["model"], "m");
    let verdict = app.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(app.results(&batch).await.error_codes(), ["batch_cancelled"; 500]);
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn a_batch_called_off_at_once_leaves_one_line_for_each_row() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let input = rows(500);
    let file_id = app.upload(input.clone()).await;

    for _ in 0..8 {
        let id = app.create_batch(&file_id).await;
        app.cancel(&id).await.ok();
        let batch = app.wait_for(&id, "cancelled").await;

        assert_eq!(batch["request_counts"], json!({ "total": 500, "completed": 0, "failed": 0 }));
        let verdict = app.verify(&input, &batch).await;
        assert!(verdict.holds(), "{verdict}");
    }
}

#[tokio::test]
async fn a_batch_called_off_that_would_have_failed_has_no_files() {
    let app = TestApp::with(&["--role", "api"]).await;
    let gone = app.upload(rows(1)).await;
    app.delete(&format!("/v1/files/{gone}")).await.ok();
    let called_off = [app.submit("{}\n").await, app.create_batch(&gone).await];
    for id in &called_off {
        app.cancel(id).await.ok();
    }

    let app = app.stop().await.start(&[]).await;
    for id in called_off {
        let batch = app.wait_for(&id, "cancelled").await;

        assert_eq!(batch["request_counts"], json!({ "total": 0, "completed": 0, "failed": 0 }));
        assert_eq!((&batch["output_file_id"], &batch["error_file_id"]), (&Value::Null, &Value::Null));
        assert_eq!(batch["errors"], Value::Null);
    }
}

#[tokio::test]
async fn a_batch_that_has_ended_cannot_be_called_off() {
    let app = TestApp::start().await;
    let (completed, failed) = (app.submit(rows(1)).await, app.submit("{}\n").await);
    app.wait_for(&completed, "completed").await;
    app.wait_for(&failed, "failed").await;

    for (id, status) in [(completed, "completed"), (failed, "failed")] {
        let answer = app.cancel(&id).await;

        let expected = error(&format!("Cannot cancel a batch with status '{status}'."), None, None);
        assert_eq!((answer.status, answer.json()), (409, expected));
        assert_eq!(answer.header("x-should-retry"), "false");
    }
}

#[tokio::test]
async fn rows_that_wait_for_another_attempt_end_with_their_batch() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::error(429).header("retry-after", "600").held());
    let id = app.submit(rows(3)).await;
    until("three calls", || app.upstream.calls().len() == 3).await;
    app.upstream.release();

    app.cancel(&id).await.ok();
    let batch = app.wait_for(&id, "cancelled").await;

    assert_eq!(app.results(&batch).await.error_codes(), ["batch_cancelled"; 3]);
}

#[tokio::test]
async fn a_batch_out_of_time_expires_with_one_line_for_each_row() {
    let app = TestApp::with(&WINDOWS).await;
    app.upstream.reply(|_| Reply::ok().held());
    let input = rows(5);
    let file_id = app.upload(input.clone()).await;

    let id = app.create_batch_within(&file_id, "1s").await;
    let batch = app.wait_for(&id, "expired").await;

    assert_eq!(batch["completion_window"], "1s");
    assert_eq!(batch["request_counts"], json!({ "total": 5, "completed": 0, "failed": 0 }));
    assert!(batch["expired_at"].is_i64() && batch["finalizing_at"].is_i64(), "{batch}");
    assert_eq!((&batch["completed_at"], &batch["output_file_id"]), (&Value::Null, &Value::Null));
    let verdict = app.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    let results = app.results(&batch).await;
    assert_eq!(results.error_codes(), ["batch_expired"; 5]);
    let message = "This request could not be executed before the completion window expired.";
    assert_eq!(results.errors[0]["error"]["message"], message);
    until("the calls to be aborted", || app.upstream.aborted() == app.upstream.calls().len()).await;
}

#[tokio::test]
async fn a_batch_out_of_time_while_it_is_validated_expires_with_one_line_for_each_row() {
    let app = TestApp::with(&["--role", "api", "--completion-windows", "24h,1s"]).await;
    let input = rows(5);
    let file_id = app.upload(input.clone()).await;
    let id = app.create_batch_within(&file_id, "1s").await;
    let expires_at = app.batch(&id).await["expires_at"].as_i64().expect("a time");
    until("the window to close", || Clock::System.now().seconds() > expires_at).await;

    let app = app.stop().await.start(&[]).await;
    let batch = app.wait_for(&id, "expired").await;

    assert!(batch["in_progress_at"].as_i64() > Some(expires_at), "{batch}");
    assert_eq!(batch["request_counts"], json!({ "total": 5, "completed": 0, "failed": 0 }));
    let verdict = app.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(app.results(&batch).await.error_codes(), ["batch_expired"; 5]);
}

#[tokio::test]
async fn an_expired_batch_keeps_what_was_done_in_time() {
    let app = TestApp::with(&WINDOWS).await;
    all_but_the_first_are_held(&app);
    let input = rows(3);
    let file_id = app.upload(input.clone()).await;

    let id = app.create_batch_within(&file_id, "4s").await;
    let batch = app.wait_for(&id, "expired").await;

    assert_eq!(batch["request_counts"], json!({ "total": 3, "completed": 1, "failed": 0 }));
    assert_eq!(app.results(&batch).await.output_ids(), ["row-0"]);
    assert!(app.verify(&input, &batch).await.holds());
}

#[tokio::test]
async fn the_line_of_an_expired_row_says_how_its_last_attempt_ended() {
    let app = TestApp::with(&[&WINDOWS[..], &["--max-retries", "1000"]].concat()).await;
    app.upstream.reply(|call| match call.text() {
        text if text.contains("row-1") => Reply::error(500),
        text if text.contains("row-2") => Reply::error(429).header("retry-after", "60"),
        _ => Reply::ok(),
    });
    let file_id = app.upload(rows(3)).await;

    let id = app.create_batch_within(&file_id, "4s").await;
    let batch = app.wait_for(&id, "expired").await;

    let errors = app.results(&batch).await.errors;
    let said_of = |row: &str| {
        let line = errors.iter().find(|line| line["custom_id"] == row).unwrap_or_else(|| panic!("{row}: {errors:?}"));
        assert_eq!(line["error"]["code"], "batch_expired");
        line["error"]["message"].as_str().expect("a message").to_owned()
    };
    assert!(said_of("row-1").contains("status 500"), "{}", said_of("row-1"));
    assert!(said_of("row-2").contains("status 429"), "{}", said_of("row-2"));
}

#[tokio::test]
async fn an_expired_batch_cannot_be_called_off() {
    let app = TestApp::with(&WINDOWS).await;
    app.upstream.reply(|_| Reply::ok().held());
    let file_id = app.upload(rows(1)).await;
    let id = app.create_batch_within(&file_id, "1s").await;
    app.wait_for(&id, "expired").await;

    let answer = app.cancel(&id).await;

    assert_eq!(
        (answer.status, answer.json()),
        (409, error("Cannot cancel a batch with status 'expired'.", None, None))
    );
}

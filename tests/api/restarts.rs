//! A service that stops, or ends from one moment to the next, and the one that goes on with its data.

use std::time::Duration;

use serde_json::Value;

use crate::common::builders::{line, rows};
use crate::common::eventually::{eventually, until, within};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::TestApp;

/// How often each row was sent, in the order of their numbers.
fn times_sent(upstream: &FakeUpstream, count: usize) -> Vec<usize> {
    let calls = upstream.calls();
    (0..count).map(|row| calls.iter().filter(|call| call.is_of(&format!("row-{row}"))).count()).collect()
}

/// The first `recorded` rows are sent no more, every other one once more.
fn one_more_from(recorded: usize, sent_before: &[usize]) -> Vec<usize> {
    assert_eq!(sent_before.iter().sum::<usize>(), recorded + 2, "{sent_before:?}");
    sent_before.iter().enumerate().map(|(row, times)| if row < recorded { *times } else { times + 1 }).collect()
}

/// Answers the first `count` rows and holds the others.
fn answer_first(upstream: &FakeUpstream, count: usize) {
    upstream.reply(move |call| {
        let is_first = (0..count).any(|row| call.is_of(&format!("row-{row}")));
        if is_first { Reply::ok() } else { Reply::ok().held() }
    });
}

/// A service and a batch of these rows, of which three are recorded, and two are under way.
async fn in_the_middle(input: &str, flags: &[&str]) -> (TestApp, String) {
    let app = TestApp::with(&[flags, &["--max-concurrency", "2"]].concat()).await;
    answer_first(&app.upstream, 3);
    let id = app.submit(input.to_owned()).await;
    app.wait_for_completed(&id, 3).await;
    until("two calls to run", || app.upstream.running() == 2).await;
    (app, id)
}

#[tokio::test]
async fn a_restart_goes_on_without_repeating_what_was_recorded() {
    let input = rows(10);
    let (app, id) = in_the_middle(&input, &["--grace", "100ms"]).await;

    let stopped = app.stop().await;
    let sent_before = times_sent(&stopped.upstream, 10);
    stopped.upstream.release();
    let app = stopped.start(&["--max-concurrency", "2"]).await;
    let batch = app.wait_for(&id, "completed").await;

    let verdict = app.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(batch["request_counts"]["completed"], 10);
    assert_eq!(times_sent(&app.upstream, 10), one_more_from(3, &sent_before));
}

#[tokio::test]
async fn answers_that_come_within_the_grace_time_are_kept() {
    let app = TestApp::with(&["--grace", "60s", "--max-concurrency", "2"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(5)).await;
    until("two calls to run", || app.upstream.running() == 2).await;

    let stopping = app.begin_to_stop();
    stopping.upstream.release();
    let stopped = stopping.ended().await;
    let sent_before = times_sent(&stopped.upstream, 5);
    let app = stopped.start(&[]).await;
    let batch = app.wait_for(&id, "completed").await;

    assert!(sent_before.iter().sum::<usize>() < 5, "{sent_before:?}");
    assert_eq!(times_sent(&app.upstream, 5), [1; 5]);
    assert!(app.verify(&rows(5), &batch).await.holds());
}

#[tokio::test]
async fn a_service_that_stops_turns_uploads_away_and_answers_all_else() {
    let app = TestApp::with(&["--grace", "60s"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;
    until("the call to run", || app.upstream.running() == 1).await;

    let stopping = app.begin_to_stop();
    let upload = eventually("uploads to be turned away", async || {
        let answer = stopping.client.try_upload(rows(1)).await;
        (answer.status != 200).then_some(answer)
    })
    .await;

    assert_eq!(upload.status, 503);
    assert_eq!(upload.headers["retry-after"], "1");
    assert_eq!(stopping.client.get("/readyz").await.status, 503);
    assert_eq!(stopping.client.get(&format!("/v1/batches/{id}")).await.status, 200);
    stopping.upstream.release();
    stopping.ended().await;
}

#[tokio::test]
async fn a_service_that_stops_aborts_what_outlasts_the_grace_time() {
    let app = TestApp::with(&["--grace", "100ms"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    app.submit(rows(3)).await;
    until("three calls to run", || app.upstream.running() == 3).await;

    let stopped = app.stop().await;

    until("the calls to be aborted", || stopped.upstream.aborted() == 3).await;
}

#[tokio::test]
async fn the_lease_of_a_dead_process_is_taken_over_at_once() {
    // As many as one lease has: which of two goes on first is nobody's business.
    let input = rows(8);
    let (app, id) = in_the_middle(&input, &[]).await;

    let crashed = app.crash().await;
    let sent_before = times_sent(&crashed.upstream, 8);
    let app = crashed.start(&["--max-concurrency", "2"]).await;
    // Far less than the lifetime of a daemon that says nothing any more.
    within(Duration::from_secs(5), "rows to be sent again", async || {
        times_sent(&app.upstream, 8).contains(&2).then_some(())
    })
    .await;
    app.upstream.release();
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(times_sent(&app.upstream, 8), one_more_from(3, &sent_before));
    let verdict = app.verify(&input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
}

#[tokio::test]
async fn a_row_keeps_its_id_over_a_crash() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::ok().held());
    let id = app.submit(rows(1)).await;
    until("a call to run", || app.upstream.running() == 1).await;

    let crashed = app.crash().await;
    crashed.upstream.release();
    let app = crashed.start(&[]).await;
    let batch = app.wait_for(&id, "completed").await;

    let line_id = app.results(&batch).await.output[0]["id"].as_str().expect("an id").to_owned();
    let keys: Vec<String> = app.upstream.calls().iter().map(|call| call.key().to_owned()).collect();
    assert_eq!(keys, [line_id.clone(), line_id]);
}

#[tokio::test]
async fn a_cancel_before_a_crash_is_carried_out_after_it() {
    let app = TestApp::with(&["--role", "api"]).await;
    let id = app.submit(rows(3)).await;
    let app = app.stop().await.start(&["--max-concurrency", "1"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    until("a call to run", || app.upstream.running() == 1).await;
    app.cancel(&id).await.ok();

    let app = app.crash().await.start(&[]).await;
    let batch = app.wait_for(&id, "cancelled").await;

    assert!(app.verify(&rows(3), &batch).await.holds());
}

#[tokio::test]
async fn files_and_batches_outlive_the_process() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(2)).await;
    let id = app.create_batch(&file_id).await;
    let before = app.wait_for(&id, "completed").await;
    let output = app.content(before["output_file_id"].as_str().expect("an id")).await.bytes;

    let app = app.crash().await.start(&[]).await;

    assert_eq!(app.batch(&id).await, before);
    assert_eq!(app.content(&file_id).await.text(), rows(2));
    assert_eq!(app.content(before["output_file_id"].as_str().expect("an id")).await.bytes, output);
}

/// Creates a batch of this file that is to fail, and returns the only error it lists.
async fn only_error(app: &TestApp, file_id: &str) -> Value {
    let id = app.create_batch(file_id).await;
    let batch = app.wait_for(&id, "failed").await;
    match batch["errors"]["data"].as_array().map(Vec::as_slice) {
        Some([only]) => only.clone(),
        _ => panic!("not one error: {batch}"),
    }
}

#[tokio::test]
async fn a_file_that_was_uploaded_under_other_limits_runs_whole_or_not_at_all() {
    let all = "--max-batch-rows=50000";
    let few = "--max-batch-rows=10";
    let too_many = "The batch input file has 20 requests, more than the 10 one batch may have. \
                    Please try again with a smaller batch.";
    let cut = "The batch input file has 20 requests, more than the 10 one batch could have when it was uploaded. \
               Please upload the file again.";
    let long = "This line is longer than the 1024 bytes one request could have at its upload (--max-line-bytes).";
    let (twenty, long_row) = (rows(20), line(&"x".repeat(2000)).to_string());
    let cases = [
        (few, all, &twenty, Some(cut)),
        (all, few, &twenty, Some(too_many)),
        ("--max-line-bytes=1KiB", all, &long_row, Some(long)),
        (all, "--max-line-bytes=1KiB", &long_row, None),
        ("--max-batch-bytes=1KiB", all, &twenty, None),
        ("--single-model", all, &twenty, None),
    ];

    for (before, after, input, refusal) in cases {
        let app = TestApp::with(&[before]).await;
        let file_id = app.upload(input.clone()).await;
        let app = app.stop().await.start(&[after]).await;

        if let Some(message) = refusal {
            assert_eq!(only_error(&app, &file_id).await["message"], message, "{before}, then {after}");
        } else {
            let id = app.create_batch(&file_id).await;
            let batch = app.wait_for(&id, "completed").await;
            let verdict = app.verify(input, &batch).await;
            assert!(verdict.holds(), "{before}, then {after}: {verdict}");
        }
        app.stop().await;
    }
}

//! Batches that are paused and resumed, and that run a few of their rows first.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::client::{Answer, error, new_batch, text};
use crate::common::eventually::{eventually, until, within};
use crate::common::fake_upstream::{Call, Reply};
use crate::common::test_app::TestApp;

/// No row starts for so long after the last one may have: longer than workers need to learn that a batch is paused.
const QUIET: Duration = Duration::from_secs(2);

async fn steer(app: &TestApp, id: &str, verb: &str) -> Answer {
    app.post(&format!("/v1/batches/{id}/{verb}"), &json!({})).await
}

/// A batch over this input with this metadata.
async fn submit_with(app: &TestApp, input: String, metadata: Value) -> String {
    let mut new = new_batch(&app.upload(input).await, "24h");
    new["metadata"] = metadata;
    text(&app.post("/v1/batches", &new).await.ok()["id"]).to_owned()
}

/// Checks that no row starts although workers could run more.
async fn assert_quiet(app: &TestApp) {
    let calls = app.upstream.calls().len();
    let started = std::time::Instant::now();
    until("some time to pass", || {
        assert_eq!(app.upstream.calls().len(), calls, "a row has started");
        started.elapsed() > QUIET
    })
    .await;
}

/// Waits until so many rows have a result, whatever it is.
async fn wait_for_recorded(app: &TestApp, id: &str, rows: u64) -> Value {
    eventually("rows to be recorded", async || {
        let batch = app.batch(id).await;
        let count = |name: &str| batch["request_counts"][name].as_u64().unwrap_or_default();
        (count("completed") + count("failed") >= rows).then_some(batch)
    })
    .await
}

#[tokio::test]
async fn calls_under_way_end_while_their_batch_is_paused_and_no_row_starts() {
    let app = TestApp::with(&["--max-concurrency", "3"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let input = rows(40);
    let id = app.submit(input.clone()).await;
    until("three calls to run", || app.upstream.running() == 3).await;
    let running = app.batch(&id).await;

    let paused = steer(&app, &id, "pause").await.ok();
    let again = steer(&app, &id, "pause").await.ok();
    assert_quiet(&app).await;
    app.upstream.release();
    let batch = wait_for_recorded(&app, &id, 3).await;
    assert_quiet(&app).await;

    assert_eq!((&paused, &again), (&running, &running), "the object is that of any batch");
    assert_eq!(batch["request_counts"], json!({ "total": 40, "completed": 3, "failed": 0 }));
    assert_eq!((app.upstream.calls().len(), app.upstream.aborted()), (3, 0));
    let resumed = steer(&app, &id, "resume").await.ok();
    assert_eq!(resumed["status"], "in_progress");
    let batch = app.wait_for(&id, "completed").await;
    assert!(app.verify(&input, &batch).await.holds());
    assert_eq!(app.upstream.calls().len(), 40, "no row was sent twice");
}

#[tokio::test]
async fn rows_that_wait_for_another_attempt_wait_on_while_their_batch_is_paused() {
    let app = TestApp::with(&["--max-retries", "1000"]).await;
    app.upstream.reply(|call| match call.attempt {
        0 => Reply::error(500).header("retry-after", "1"),
        _ => Reply::ok(),
    });
    let input = rows(3);
    let id = app.submit(input.clone()).await;
    until("three calls", || app.upstream.calls().len() == 3).await;

    steer(&app, &id, "pause").await.ok();
    assert_quiet(&app).await;
    steer(&app, &id, "resume").await.ok();
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["request_counts"], json!({ "total": 3, "completed": 3, "failed": 0 }));
    assert!(app.verify(&input, &batch).await.holds());
}

#[tokio::test]
async fn rows_that_are_parked_wait_on_while_their_batch_is_paused() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| match call.attempt {
        0 => Reply::error(503).header("retry-after", "1"),
        _ => Reply::ok(),
    });
    let id = app.submit(rows(3)).await;
    until("a call", || !app.upstream.calls().is_empty()).await;

    steer(&app, &id, "pause").await.ok();
    // What was under way when the batch was paused.
    until("the calls to end", || app.upstream.running() == 0).await;
    assert_quiet(&app).await;
    steer(&app, &id, "resume").await.ok();

    app.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn other_batches_go_on_while_one_is_paused() {
    let app = TestApp::with(&["--max-concurrency", "4"]).await;
    let paused = submit_with(&app, rows(200), json!({ "canary": "1" })).await;
    wait_for_recorded(&app, &paused, 1).await;

    let results = app.run(rows(20)).await;

    assert_eq!(results.output.len(), 20);
    assert_eq!(app.batch(&paused).await["request_counts"]["completed"], 1);
}

#[tokio::test]
async fn a_batch_that_is_resumed_while_its_calls_run_goes_on_at_once() {
    let app = TestApp::with(&["--max-concurrency", "4"]).await;
    app.upstream.reply(|call| {
        let reply = Reply::ok().after(Duration::from_millis(20));
        if call.is_of("row-5") { reply.held() } else { reply }
    });
    let input = rows(500);
    let id = app.submit(input.clone()).await;
    app.wait_for_completed(&id, 8).await;

    steer(&app, &id, "pause").await.ok();
    // A worker hears of the pause a moment later.
    until_quiet(&app).await;
    assert_quiet(&app).await;
    assert_eq!(app.upstream.running(), 1, "the call of row-5 is under way");
    let calls = app.upstream.calls().len();
    steer(&app, &id, "resume").await.ok();
    until("other rows to run", || app.upstream.calls().len() > calls + 50).await;
    assert_eq!(app.upstream.running().min(1), 1, "the call of row-5 is under way");
    app.upstream.release();

    let batch = app.wait_for(&id, "completed").await;
    assert!(app.verify(&input, &batch).await.holds());
}

#[tokio::test]
async fn a_batch_is_paused_before_it_is_validated() {
    let app = TestApp::with(&["--role", "api"]).await;
    let id = app.submit(rows(3)).await;
    let paused = steer(&app, &id, "pause").await.ok();

    let app = app.stop().await.start(&[]).await;
    app.wait_for_status(&id, "in_progress").await;
    assert_quiet(&app).await;

    assert_eq!(paused["status"], "validating");
    assert!(app.upstream.calls().is_empty());
    steer(&app, &id, "resume").await.ok();
    app.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn a_paused_batch_is_cancelled_or_expires() {
    let app = TestApp::with(&["--completion-windows", "24h,4s"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let input = rows(5);
    let file_id = app.upload(input.clone()).await;
    let cancelled = app.create_batch(&file_id).await;
    let expired = app.create_batch_within(&file_id, "4s").await;
    for id in [&cancelled, &expired] {
        steer(&app, id, "pause").await.ok();
    }

    app.cancel(&cancelled).await.ok();

    for (id, status, code) in [(cancelled, "cancelled", "batch_cancelled"), (expired, "expired", "batch_expired")] {
        let batch = app.wait_for(&id, status).await;
        assert_eq!(app.results(&batch).await.error_codes(), [code; 5]);
        assert!(app.verify(&input, &batch).await.holds());
        for verb in ["pause", "resume"] {
            let answer = steer(&app, &id, verb).await;
            let expected = error(&format!("Cannot {verb} a batch with status '{status}'."), None, None);
            assert_eq!((answer.status, answer.json()), (409, expected));
        }
    }
}

#[tokio::test]
async fn a_pause_survives_a_crash() {
    let app = TestApp::with(&["--max-concurrency", "2"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let input = rows(10);
    let id = app.submit(input.clone()).await;
    until("two calls to run", || app.upstream.running() == 2).await;
    steer(&app, &id, "pause").await.ok();

    let app = app.crash().await.start(&[]).await;
    assert_quiet(&app).await;
    app.upstream.release();
    steer(&app, &id, "resume").await.ok();
    let batch = app.wait_for(&id, "completed").await;

    assert!(app.verify(&input, &batch).await.holds());
}

#[tokio::test]
async fn batches_that_are_not_there_are_not_steered() {
    let app = TestApp::start().await;
    for verb in ["pause", "resume"] {
        let unknown = "batch_0123456789abcdef0123456789abcdef";
        let answer = steer(&app, unknown, verb).await;
        assert_eq!(
            (answer.status, answer.json()),
            (404, error(&format!("No batch found with id '{unknown}'."), None, None))
        );
        assert_eq!(steer(&app, "what", verb).await.status, 400);
    }
}

#[tokio::test]
async fn a_canary_runs_its_rows_and_waits_for_its_owner() {
    let app = TestApp::start().await;
    let models = ["one", "two"];
    let input = file((0..60).map(|row| line(&format!("row-{row}")).model(models[row % 2])));
    let id = submit_with(&app, input.clone(), json!({ "canary": "10" })).await;

    let batch = wait_for_recorded(&app, &id, 10).await;
    assert_quiet(&app).await;

    assert_eq!(batch["status"], "in_progress");
    assert_eq!(app.upstream.calls().len(), 10);
    for model in models {
        let calls = app.upstream.calls().iter().filter(|call| call.text().contains(model)).count();
        assert_eq!(calls, 5, "rows of each model run first");
    }
    steer(&app, &id, "resume").await.ok();
    let batch = app.wait_for(&id, "completed").await;
    assert!(app.verify(&input, &batch).await.holds());
}

#[tokio::test]
async fn a_canary_goes_on_by_itself_if_fewer_than_half_of_its_rows_fail() {
    let app = TestApp::start().await;
    for (failing, goes_on) in [(4, true), (5, false)] {
        let fails = move |call: &Call| (0..failing).any(|row| call.is_of(&format!("row-{row}")));
        app.upstream.reply(move |call| if fails(call) { Reply::error(400) } else { Reply::ok() });
        let id = submit_with(&app, rows(30), json!({ "canary": "10:auto" })).await;

        if goes_on {
            app.wait_for(&id, "completed").await;
        } else {
            wait_for_recorded(&app, &id, 10).await;
            assert_quiet(&app).await;
            steer(&app, &id, "resume").await.ok();
            app.wait_for(&id, "completed").await;
        }
    }
}

#[tokio::test]
async fn a_canary_that_is_no_number_is_refused() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;
    for canary in ["", "0", "ten", "10%", "10:maybe"] {
        let mut new = new_batch(&file_id, "24h");
        new["metadata"] = json!({ "canary": canary });

        let answer = app.post("/v1/batches", &new).await;

        let message = format!(
            "Invalid 'metadata.canary': '{canary}'. Expected the number of rows that run first, such as '100', or \
             '100:auto' to go on by itself if fewer than half of them fail. Use another key for anything else."
        );
        let expected = error(&message, Some("metadata.canary"), Some("invalid_value"));
        assert_eq!((answer.status, answer.json()), (400, expected));
    }
}

#[tokio::test]
async fn a_batch_is_claimed_within_a_moment_of_its_resume() {
    let app = TestApp::start().await;
    let id = submit_with(&app, rows(5), json!({ "canary": "1" })).await;
    wait_for_recorded(&app, &id, 1).await;

    steer(&app, &id, "resume").await.ok();

    within(Duration::from_secs(2), "the other rows to run", async || {
        (app.batch(&id).await["status"] == "completed").then_some(())
    })
    .await;
}

/// Waits until no row has started for a while: rows that were ready when a pause was recorded may start until their
/// worker knows of it.
async fn until_quiet(app: &TestApp) {
    let mut last = (0, std::time::Instant::now());
    until("no row to start any more", || {
        let calls = app.upstream.calls().len();
        if calls != last.0 {
            last = (calls, std::time::Instant::now());
        }
        last.1.elapsed() > QUIET
    })
    .await;
}

async fn progress(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/v1/batches/{id}/progress")).await.ok()
}

#[tokio::test]
async fn a_batch_whose_rows_all_fail_alike_pauses_and_its_owner_can_let_it_go_on() {
    let app = TestApp::with(&["--max-concurrency", "4", "--pause-after-alike", "5"]).await;
    app.upstream.reply(|_| Reply::error(422).after(Duration::from_millis(50)));
    let input = rows(100);
    let id = app.submit(input.clone()).await;

    let paused = eventually("the batch to pause", async || {
        let progress = progress(&app, &id).await;
        (progress["phase"] == "paused").then_some(progress)
    })
    .await;
    until_quiet(&app).await;

    let message = text(&paused["reason"]["message"]);
    assert_eq!(paused["reason"]["code"], "paused");
    assert!(
        message.contains("failed alike: http_status, with status 422: No. Resume it, and it goes on."),
        "{message}"
    );
    assert_eq!(paused["status"], "in_progress");
    assert!(app.upstream.calls().len() < 60, "it stops early");
    steer(&app, &id, "resume").await.ok();
    let batch = app.wait_for(&id, "completed").await;
    assert_eq!(batch["request_counts"], json!({ "total": 100, "completed": 0, "failed": 100 }));
    assert!(app.verify(&input, &batch).await.holds());
}

#[tokio::test]
async fn only_failures_alike_of_all_rows_pause_a_batch() {
    type Answers = fn(row: usize) -> Reply;
    let every_other: Answers = |row| Reply::error([400, 422][row % 2]);
    let alike: Answers = |_| Reply::error(400);
    let all_but_the_first: Answers = |row| if row == 0 { Reply::ok() } else { Reply::error(400) };
    // How the rows are answered, how many there are, and the number that pauses their batch.
    let cases = [(every_other, 30, "5"), (alike, 30, "0"), (alike, 5, "5"), (all_but_the_first, 30, "5")];
    for (answers, count, after) in cases {
        let app = TestApp::with(&["--max-concurrency", "1", "--pause-after-alike", after]).await;
        app.upstream.reply(move |call| {
            let row = (0..count).find(|row| call.is_of(&format!("row-{row}")));
            answers(row.expect("one of the rows"))
        });

        let id = app.submit(rows(count)).await;

        app.wait_for(&id, "completed").await;
    }
}

//! The progress of a batch: where its rows are, why it is no faster, and how they failed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::eventually::eventually;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};
use crate::upstreams::{app_of, table};

/// What keeps a batch from going on shows within two seconds, and so does its end: `--nocapture` prints the times. The
/// rest is for a machine that is busy.
const SOON: Duration = Duration::from_secs(10);

async fn progress(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/v1/batches/{id}/progress")).await.ok()
}

/// Waits for a reason with this code.
async fn reason(app: &TestApp, id: &str, code: &str) -> Value {
    let started = Instant::now();
    loop {
        let progress = progress(app, id).await;
        if progress["reason"]["code"] == code {
            println!("{code} after {:?}", started.elapsed());
            return progress["reason"].clone();
        }
        assert!(started.elapsed() < SOON, "waited for the reason {code}: {progress}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until rows are answered, and then for the end of a reason with this code.
async fn end_of_reason(app: &TestApp, id: &str, code: &str) {
    eventually("a row is answered", async || {
        progress(app, id).await["rows"]["completed"].as_u64().filter(|rows| *rows > 0)
    })
    .await;
    over(app, id, code).await;
}

/// Waits for the end of a reason with this code, whose cause has just ended.
async fn over(app: &TestApp, id: &str, code: &str) {
    let ended = Instant::now();
    loop {
        let progress = progress(app, id).await;
        if progress["reason"]["code"] != code {
            println!("{code} is over after {:?}", ended.elapsed());
            return;
        }
        assert!(ended.elapsed() < SOON, "waited for the end of the reason {code}: {progress}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the reason has times of the wall clock")]
fn now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    i64::try_from(since_epoch.as_secs()).expect("a time")
}

#[tokio::test]
async fn a_batch_that_its_upstream_keeps_back_says_why_and_until_when() {
    type Answer = fn() -> Reply;
    // How the upstream answers; the reason, a part of its message, and in how many seconds it is over.
    let cases: [(Answer, &str, &str, Option<i64>); 4] = [
        (|| Reply::error(429).header("retry-after", "3"), "rate_limited", "429", Some(3)),
        (|| Reply::error(401), "upstream_down", "--upstream-key", None),
        (|| Reply::error(500), "retrying", "http_status", None),
        (|| Reply::ok().held(), "waiting_for_capacity", "--max-concurrency", None),
    ];
    for (answer, code, words, over_in) in cases {
        let app = TestApp::with(&["--max-concurrency", "4", "--max-retries", "20"]).await;
        app.upstream.reply(move |_| answer());
        let id = app.submit(rows(40)).await;

        let reason = reason(&app, &id, code).await;

        let message = reason["message"].as_str().expect("a sentence");
        assert!(message.contains(words), "{code}: {message}");
        let until = reason["until"].as_i64().map(|until| until - now());
        let fits =
            over_in.map_or(until.is_none(), |over| until.is_some_and(|until| (over - 15..=over).contains(&until)));
        assert!(fits, "{code}: over in {until:?} s");

        app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(100)));
        app.upstream.release();
        end_of_reason(&app, &id, code).await;
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_named_with_the_time_since_when() {
    let mut app = Stopped::new(FakeUpstream::down()).start(&[]).await;
    let id = app.submit(rows(40)).await;

    let down = reason(&app, &id, "upstream_down").await;
    let since = down["since"].as_i64().expect("it is known");
    assert!((now() - 15..=now()).contains(&since), "{down}");
    assert!(down["message"].as_str().is_some_and(|message| message.contains("refused")), "{down}");

    app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(100)));
    app.upstream.listen();
    end_of_reason(&app, &id, "upstream_down").await;
    app.wait_for(&id, "completed").await;
    assert_eq!(progress(&app, &id).await["reason"], Value::Null);
}

#[tokio::test]
async fn rows_behind_those_of_another_batch_are_said_to_be() {
    let app = TestApp::with(&["--max-concurrency", "4"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let first = app.submit(rows(40)).await;
    reason(&app, &first, "waiting_for_capacity").await;

    let second = app.submit(rows(40)).await;
    reason(&app, &second, "behind_other_batches").await;

    app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(20)));
    app.upstream.release();
    app.wait_for(&first, "completed").await;
    over(&app, &second, "behind_other_batches").await;
    app.wait_for(&second, "completed").await;
}

#[tokio::test]
async fn a_batch_that_nobody_can_run_says_what_is_missing() {
    let model = FakeUpstream::start();
    let app = app_of(&[table("gpu", &model, "models = ['other']")], &[]).await;
    let id = app.submit(rows(3)).await;
    let missing = reason(&app, &id, "no_upstream").await;
    assert!(missing["message"].as_str().is_some_and(|message| message.contains("'m'")), "{missing}");
    app.read_upstreams(&table("gpu", &model, "models = ['m']")).expect("it is well");
    over(&app, &id, "no_upstream").await;

    let app = TestApp::with(&["--role", "api"]).await;
    let id = app.submit(rows(3)).await;
    reason(&app, &id, "no_worker").await;
    let app = app.stop().await.start(&[]).await;
    over(&app, &id, "no_worker").await;
}

#[tokio::test]
async fn a_paused_batch_is_said_to_be_paused() {
    let app = TestApp::with(&["--max-concurrency", "4"]).await;
    app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(100)));
    let id = app.submit(rows(100)).await;

    app.post(&format!("/v1/batches/{id}/pause"), &json!({})).await.ok();
    reason(&app, &id, "paused").await;
    app.post(&format!("/v1/batches/{id}/resume"), &json!({})).await.ok();
    over(&app, &id, "paused").await;
}

#[tokio::test]
async fn failures_are_counted_by_kind_with_a_sample_and_rows_add_up() {
    let app = TestApp::with(&["--max-retries", "0"]).await;
    app.upstream.reply(|call| match () {
        () if call.is_of("row-3") || call.is_of("row-5") => {
            Reply::new(400, r#"{"error":{"message":"It is too long.","code":"context_length_exceeded"}}"#)
        }
        () if call.is_of("row-7") => Reply::error(422),
        () => Reply::ok(),
    });
    let id = app.submit(rows(20)).await;
    app.wait_for(&id, "completed").await;

    let progress = progress(&app, &id).await;

    let rows = json!({
        "total": 20, "waiting": 0, "running": 0, "retrying": 0, "completed": 17, "failed": 3
    });
    assert_eq!((&progress["rows"], &progress["phase"]), (&rows, &json!("ended")));
    assert_eq!(progress["usage"]["total_tokens"], 85);
    assert_eq!((&progress["estimate"], &progress["window"]["will_be_met"]), (&Value::Null, &json!(true)));
    let failures = progress["failures"].as_array().expect("a list");
    assert_eq!(failures.len(), 2);
    let first = &failures[0];
    assert_eq!(first["code"], "context_length_exceeded");
    assert_eq!((&first["status_code"], &first["rows"]), (&json!(400), &json!(2)));
    assert_eq!(first["sample"]["message"], "It is too long.");
    assert_eq!(failures[1]["sample"], json!({ "custom_id": "row-7", "message": "No." }));
    assert!(progress.get("throughput").is_none());
}

#[tokio::test]
async fn the_course_of_a_batch_is_kept_over_a_restart() {
    let app = TestApp::start().await;
    let id = app.submit(rows(20)).await;
    app.wait_for(&id, "completed").await;

    let app = app.stop().await.start(&[]).await;
    let answer = app.get(&format!("/v1/batches/{id}/progress?include=throughput")).await.ok();

    let points = answer["throughput"].as_array().expect("a list");
    assert_eq!(points.iter().filter_map(|point| point["rows"].as_u64()).sum::<u64>(), 20);
    assert_eq!(points.iter().filter_map(|point| point["tokens"].as_u64()).sum::<u64>(), 100);
}

#[tokio::test]
async fn a_batch_at_work_has_a_rate_and_an_end() {
    let app = TestApp::with(&["--max-concurrency", "4", "--concurrency", "fixed"]).await;
    app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(50)));
    let id = app.submit(rows(600)).await;

    let at_work = eventually("an estimate", async || {
        let progress = progress(&app, &id).await;
        (progress["estimate"].is_object() && progress["phase"] == "running").then_some(progress)
    })
    .await;

    assert_eq!(at_work["window"]["will_be_met"], true);
    let counted: u64 = ["waiting", "running", "retrying", "completed", "failed"]
        .iter()
        .filter_map(|state| at_work["rows"][state].as_u64())
        .sum();
    assert_eq!(counted, 600);
    let ends_in = at_work["estimate"]["ends_at"].as_i64().expect("a time") - now();
    assert!((0..600).contains(&ends_in), "{ends_in} s");
}

#[tokio::test]
async fn a_batch_costs_what_the_settings_say_of_its_models() {
    // The prices of the settings; what 20 rows of 3 and 2 tokens cost.
    let cases = [
        ("", Value::Null),
        ("[prices.models.other]\ninput = 1\noutput = 1", Value::Null),
        (
            "[prices]\ncurrency = 'EUR'\n[prices.models.'*']\ninput = 1000\noutput = 2000.0",
            json!({ "currency": "EUR", "amount": "0.14", "estimated_total": "0.14" }),
        ),
    ];
    for (prices, expected) in cases {
        let server = FakeUpstream::start();
        let app = app_of(&[table("gpu", &server, "models = '*'"), prices.to_owned()], &[]).await;
        let id = app.submit(rows(20)).await;
        app.wait_for(&id, "completed").await;

        assert_eq!(progress(&app, &id).await["cost"], expected, "{prices}");
    }
}

#[tokio::test]
async fn what_is_unknown_is_refused() {
    let app = TestApp::start().await;
    let id = app.submit(rows(1)).await;

    assert_eq!(app.get("/v1/batches/batch_00000000000000000000000000000000/progress").await.status, 404);
    let refused = app.get(&format!("/v1/batches/{id}/progress?include=all")).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("include")));
}

//! Whose rows are next: windows that are at risk, and fair shares of owners.

use std::time::Duration;

use batchwright::domain::time::Clock;
use serde_json::json;

use crate::common::eventually::{until, within};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};
use crate::owners::give_away;
use crate::sharing::rows_of;
use crate::upstreams::{row_calls, table, warnings};

/// Eight calls at once, each of 20 ms: about 400 rows a second.
const CALLS: [&str; 6] = ["--max-retries", "0", "--max-concurrency", "8", "--concurrency", "fixed"];

#[tokio::test]
async fn a_batch_whose_window_closes_soon_makes_it_beside_one_that_has_time() {
    let app = TestApp::with(&[&CALLS[..], &["--completion-windows", "24h,10s"]].concat()).await;
    app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(200)));
    let patient = app.submit(rows_of("m", 1_200)).await;
    until("the patient batch to run", || app.upstream.calls().len() > 8).await;

    // With half of the calls it would take 12 s.
    let file = app.upload(rows_of("m", 240)).await;
    let urgent = app.create_batch_within(&file, "10s").await;
    let batch = app.wait_for(&urgent, "completed").await;

    assert_eq!(batch["request_counts"], json!({ "total": 240, "completed": 240, "failed": 0 }));
    assert_ne!(app.batch(&patient).await["status"], "completed");
}

#[tokio::test]
async fn an_owner_with_many_large_batches_leaves_half_of_the_calls_to_another() {
    let app = TestApp::with(&CALLS).await;
    app.upstream.reply(|_| Reply::ok().held());
    for _ in 0..20 {
        app.submit(rows_of("m", 1_000)).await;
    }
    give_away(&app).await;
    app.upstream.reply(|_| Reply::ok().after(Duration::from_millis(20)));
    app.upstream.release();
    until("the large batches to run", || app.upstream.calls().len() > 100).await;

    let before = app.upstream.calls().len();
    let small = app.run(rows_of("m", 400)).await;

    assert_eq!(small.output.len(), 400);
    let of_both = app.upstream.calls().len() - before;
    assert!(of_both < 400 * 5 / 2, "{of_both} calls, until 400 of one owner had ended");
}

#[tokio::test]
async fn an_escalation_upstream_gets_rows_of_a_batch_that_would_miss_its_window_and_no_others() {
    let (usual, extra) = (FakeUpstream::start(), FakeUpstream::start());
    for upstream in [&usual, &extra] {
        upstream.reply(|_| Reply::ok().after(Duration::from_millis(20)));
    }
    let tables = [
        table("usual", &usual, "models = ['m']\nmax_concurrency = 4"),
        table("extra", &extra, "models = ['m']\nescalation = true"),
    ];
    let flags = [&CALLS[..], &["--completion-windows", "24h,6s"]].concat();
    let app = Stopped::new(FakeUpstream::down()).start_with_upstreams(&tables.concat(), &flags).await;

    app.run(rows_of("m", 200)).await;
    assert_eq!(row_calls(&extra).len(), 0, "there was time");
    // The first upstream alone would take 8 s.
    let file = app.upload(rows_of("m", 1_600)).await;
    let urgent = app.create_batch_within(&file, "6s").await;
    app.wait_for_completed(&urgent, 1_600).await;
    assert!(row_calls(&extra).len() > 200, "{}", row_calls(&extra).len());
}

#[tokio::test]
async fn outside_its_run_window_an_upstream_gets_no_row() {
    let (rests, works) = (FakeUpstream::start(), FakeUpstream::start());
    // An hour that is half a day away.
    let now = Clock::System.now().0 / 60_000;
    let at = |minutes: i64| format!("{:02}:{:02}", (now + minutes) / 60 % 24, (now + minutes) % 60);
    let window = format!("models = ['m', 'n']\nrun_window = '{}-{}'", at(12 * 60), at(13 * 60));
    let tables = [table("rests", &rests, &window), table("works", &works, "models = ['m']")];
    let app = Stopped::new(FakeUpstream::down()).start_with_upstreams(&tables.concat(), &CALLS).await;

    let waiting = app.submit(rows_of("n", 1)).await;
    let results = app.run(rows_of("m", 30)).await;

    assert_eq!((results.output.len(), row_calls(&works).len(), row_calls(&rests).len()), (30, 30, 0));
    within(Duration::from_secs(10), "a warning", async || {
        warnings(&app).await.iter().any(|text| text.contains("outside its run window")).then_some(())
    })
    .await;
    assert_eq!(app.batch(&waiting).await["status"], "in_progress");
}

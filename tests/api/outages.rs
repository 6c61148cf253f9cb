//! Outages: a server that is away, or that fails with everything, costs no row an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use serde_json::json;

use crate::common::builders::rows;
use crate::common::eventually::within;
use crate::common::fake_upstream::{Call, FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};
use crate::server_state::{NO_RETRIES, warning};

#[tokio::test]
async fn an_outage_fails_no_row_and_repeats_no_call() {
    let mut app = Stopped::new(FakeUpstream::down()).start(&NO_RETRIES).await;

    let id = app.submit(rows(40)).await;
    let warned = warning(&app).await;
    app.upstream.listen();
    let batch = app.wait_for(&id, "completed").await;

    assert!(warned.contains("refused"), "{warned}");
    assert_eq!(batch["request_counts"], json!({ "total": 40, "completed": 40, "failed": 0 }));
    assert_eq!(app.upstream.calls().len(), 40);
    assert!(app.get("/readyz").await.json()["warnings"].is_null());
}

#[tokio::test]
async fn an_engine_that_dies_behind_its_server_fails_no_row() {
    let app = TestApp::with(&["--concurrency", "fixed", "--max-concurrency", "8"]).await;
    let calls = AtomicUsize::new(0);
    let is_dead = Arc::new(AtomicBool::new(false));
    let (dead, burnt) = (is_dead.clone(), Arc::new(AtomicUsize::new(0)));
    let errors = burnt.clone();
    app.upstream.reply(move |_| {
        if calls.fetch_add(1, SeqCst) == 30 {
            dead.store(true, SeqCst);
        }
        if !dead.load(SeqCst) {
            return Reply::ok().after(Duration::from_millis(5));
        }
        errors.fetch_add(1, SeqCst);
        Reply::error(500)
    });

    let id = app.submit(rows(300)).await;
    let warned = warning(&app).await;
    is_dead.store(false, SeqCst);
    let batch = app.wait_for(&id, "completed").await;

    assert!(warned.contains("it answers every row with an error"), "{warned}");
    assert_eq!(batch["request_counts"], json!({ "total": 300, "completed": 300, "failed": 0 }));
    assert!(burnt.load(SeqCst) < 100, "{burnt:?} calls were made of it");
}

#[tokio::test]
async fn rows_of_an_upstream_that_stays_down_expire_with_their_window() {
    let flags = ["--max-retries", "0", "--completion-windows", "24h,2s"];
    let app = Stopped::new(FakeUpstream::down()).start(&flags).await;

    let file = app.upload(rows(2)).await;
    let id = app.create_batch_within(&file, "2s").await;
    let batch = app.wait_for(&id, "expired").await;

    assert_eq!(app.results(&batch).await.error_codes(), ["batch_expired"; 2]);
}

#[tokio::test]
async fn an_engine_that_is_dead_at_a_restart_fails_no_row_of_a_batch_that_it_took_rows_of() {
    let app = TestApp::with(&["--max-concurrency", "8"]).await;
    let (calls, is_dead) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(true)));
    let dead = is_dead.clone();
    app.upstream.reply(move |_| {
        let fails = dead.load(SeqCst) && calls.fetch_add(1, SeqCst) >= 30;
        if fails { Reply::error(500) } else { Reply::ok().after(Duration::from_millis(5)) }
    });
    let id = app.submit(rows(100)).await;
    warning(&app).await;

    let app = app.stop().await.start(&["--max-concurrency", "8"]).await;
    warning(&app).await;
    is_dead.store(false, SeqCst);
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["request_counts"], json!({ "total": 100, "completed": 100, "failed": 0 }));
}

/// Refuses the first twenty rows with this status.
fn refusing(status: u16) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let refused: Vec<_> = (0..20).map(|row| format!("row-{row}")).collect();
    move |call| {
        let is_refused = refused.iter().any(|row| call.is_of(row));
        if is_refused { Reply::error(status) } else { Reply::ok() }
    }
}

#[tokio::test]
async fn rows_that_a_server_always_refuses_hold_up_no_others() {
    for status in [429, 504] {
        let app = TestApp::start().await;
        app.upstream.reply(refusing(status));
        let id = app.submit(rows(150)).await;

        within(Duration::from_secs(90), "the other rows to be completed", async || {
            let progress = app.get(&format!("/v1/batches/{id}/progress")).await.ok();
            (progress["rows"]["completed"] == 130).then_some(())
        })
        .await;
    }
}

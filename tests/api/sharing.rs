//! What waits for what: models and batches share the calls, and no model waits for another that hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::json;
use tokio::sync::Barrier;

use crate::common::builders::{file, line, rows};
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

const CALLS: usize = 8;

/// So many rows of a model.
pub fn rows_of(model: &str, count: usize) -> String {
    file((0..count).map(|row| line(&format!("{model}-{row}")).model(model)))
}

async fn app_with(calls: usize) -> TestApp {
    TestApp::with(&["--max-concurrency", &calls.to_string(), "--max-retries", "0"]).await
}

#[tokio::test]
async fn a_model_that_hangs_keeps_no_other_from_its_calls() {
    let app = app_with(CALLS).await;
    app.upstream.reply(|call| if call.text().contains("hangs") { Reply::ok().held() } else { Reply::ok() });
    let hanging = app.submit(rows_of("hangs", 2_000)).await;
    until("the model to have as many calls as it may", || app.upstream.running() == CALLS - 1).await;

    for model in ["quick", "other"] {
        let results = app.run(rows_of(model, 100)).await;
        assert_eq!(results.output.len(), 100);
    }

    assert_eq!(app.upstream.running(), CALLS - 1, "the rest stays for whoever comes");
    app.cancel(&hanging).await;
    app.wait_for(&hanging, "cancelled").await;
}

#[tokio::test]
async fn many_models_that_hang_leave_calls_to_the_next() {
    let app = app_with(16).await;
    app.upstream.reply(|call| if call.text().contains("hangs") { Reply::ok().held() } else { Reply::ok() });
    for (model, calls) in [("hangs-1", 14), ("hangs-2", 15)] {
        app.submit(rows_of(model, 500)).await;
        until("the model to have as many calls as it may", || app.upstream.running() == calls).await;
    }

    let results = app.run(rows_of("quick", 50)).await;

    assert_eq!(results.output.len(), 50);
}

#[tokio::test]
async fn a_small_batch_goes_beside_a_large_one_for_the_same_model() {
    let app = app_with(2).await;
    let large = app.submit(rows(4_000)).await;
    until("the large batch to run", || app.upstream.calls().len() > 10).await;

    let small = app.run(rows_of("m", 20)).await;

    assert_eq!(small.output.len(), 20);
    assert_ne!(app.batch(&large).await["status"], "completed", "the small one waited for the large one");
}

#[tokio::test]
async fn a_model_that_answers_has_every_call() {
    let app = app_with(CALLS).await;
    app.upstream.reply(|call| if call.is_of("row-0") { Reply::ok() } else { Reply::ok().held() });
    let batch = app.submit(rows(100)).await;

    until("every call to be under way", || app.upstream.running() == CALLS).await;

    app.upstream.release();
    app.wait_for(&batch, "completed").await;
    assert_eq!(app.upstream.peak(), CALLS);
}

#[tokio::test]
async fn a_model_that_never_answers_leaves_all_but_one_of_eight_calls_to_one_that_does() {
    for hangs_first in [true, false] {
        let app = app_with(CALLS).await;
        let (is_first, group) = (AtomicBool::new(true), Arc::new(Barrier::new(CALLS - 1)));
        app.upstream.reply(move |call| match call.text() {
            text if text.contains("hangs") => Reply::ok().held(),
            _ if is_first.swap(false, SeqCst) => Reply::ok(),
            _ => Reply::ok().with_others(&group),
        });
        let submit_hanging = async || {
            app.submit(rows_of("hangs", 100)).await;
            until("a call to hang", || app.upstream.calls().iter().any(|call| call.text().contains("hangs"))).await;
        };
        if hangs_first {
            submit_hanging().await;
            until("the model to have as many calls as it may", || app.upstream.running() == CALLS - 1).await;
        }

        let quick = app.submit(rows_of("quick", 1 + 20 * (CALLS - 1))).await;
        if !hangs_first {
            submit_hanging().await;
        }

        // Every answer but the first waits until seven of the eight calls are its model's.
        let batch = app.wait_for(&quick, "completed").await;
        assert_eq!(batch["request_counts"]["failed"], 0);
        app.upstream.release();
    }
}

#[tokio::test]
async fn a_call_that_is_recalled_for_another_model_is_made_again_and_answered_once() {
    let app = app_with(CALLS).await;
    app.upstream.reply(|call| if call.text().contains("slow") { Reply::ok().held() } else { Reply::ok() });
    let slow = app.submit(rows_of("slow", 20)).await;
    until("the model to have as many calls as it may", || app.upstream.running() == CALLS - 1).await;

    let quick = app.run(rows_of("quick", 500)).await;

    assert_eq!(quick.output.len(), 500);
    assert!(app.upstream.aborted() > 0, "calls were recalled");
    app.upstream.release();
    let batch = app.wait_for(&slow, "completed").await;
    assert_eq!(batch["request_counts"], json!({ "total": 20, "completed": 20, "failed": 0 }));
}

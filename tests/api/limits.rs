//! What a project may use: calls in a minute, and rows in line.

use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::TestApp;
use crate::upstreams::{app_of, table};

/// A service with these limits, and its upstream.
async fn app_within(limits: &str) -> (TestApp, FakeUpstream) {
    let upstream = FakeUpstream::start();
    let app = app_of(&[table("a", &upstream, "models = '*'"), limits.to_owned()], &[]).await;
    (app, upstream)
}

#[tokio::test]
async fn a_project_that_has_made_its_calls_of_a_minute_is_told_when_to_come_again() {
    let limits = "[limits]\nrequests_per_minute = 3\n[limits.projects.large]\nrequests_per_minute = 100\n";
    let (app, _upstream) = app_within(limits).await;
    let (small, large) = (app.client_of("small", "read").await, app.client_of("large", "read").await);

    for left in ["2", "1", "0"] {
        let answer = small.get("/v1/batches").await;
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, left));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), "3");
    }
    let refused = small.get("/v1/batches").await;

    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=21).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    let other = large.get("/v1/batches").await;
    assert_eq!((other.status, other.header("x-ratelimit-limit-requests")), (200, "100"));
    assert_eq!(app.get("/healthz").await.status, 200, "what no key is needed for is not counted");
}

async fn queued_rows(app: &TestApp) -> Value {
    app.get("/v1/limits").await.ok()["queued_rows"].clone()
}

#[tokio::test]
async fn a_batch_with_more_rows_than_its_project_may_have_in_line_fails_and_says_so() {
    let (app, upstream) = app_within("[limits]\nqueued_rows = 10\n").await;
    upstream.reply(|_| Reply::ok().held());
    let running = app.submit(rows(6)).await;
    until("its rows to be called", || upstream.running() == 6).await;
    assert_eq!(queued_rows(&app).await, json!({ "limit": 10, "used": 6, "left": 4 }));

    let errors = [app.validation_errors(rows(5)).await, app.validation_errors(rows(11)).await];

    let said = |errors: &[Value]| (errors[0]["code"].clone(), errors[0]["message"].to_string());
    let [(code, message), (_, too_large)] = [said(&errors[0]), said(&errors[1])];
    assert_eq!(code, "row_limit_exceeded");
    assert!(message.contains("Limit: 10 enqueued rows, of which 6 are used; this batch has 5."), "{message}");
    assert!(too_large.contains("split"), "{too_large}");
    upstream.release();
    app.wait_for(&running, "completed").await;
    assert_eq!(queued_rows(&app).await, json!({ "limit": 10, "used": 0, "left": 10 }));
    assert_eq!(app.run(rows(10)).await.output.len(), 10);
}

#[tokio::test]
async fn without_limits_a_project_is_told_that_there_are_none() {
    let app = TestApp::start().await;

    let answer = app.get("/v1/limits").await;

    let none = json!({
        "object": "limits",
        "project": "default",
        "requests_per_minute": null,
        "queued_rows": { "limit": null, "used": 0, "left": null },
        "share": 1,
    });
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "");
    assert_eq!(answer.ok(), none);
}

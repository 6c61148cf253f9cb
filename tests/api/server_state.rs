//! The state of a server is charged to no row: an outage, a rate limit or a refused key costs no attempt and rows wait.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::eventually::within;
use crate::common::fake_upstream::{Call, FakeUpstream, Reply};
use crate::common::test_app::TestApp;
use crate::sharing::rows_of;
use crate::upstreams::{app_of, table};

/// A row may fail once only.
pub(super) const NO_RETRIES: [&str; 2] = ["--max-retries", "0"];
const QUOTA: &str = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;

/// Waits until `/readyz` has a warning that the upstream takes no calls, and returns it.
pub(super) async fn warning(app: &TestApp) -> String {
    within(Duration::from_secs(30), "a warning", async || {
        let ready = app.get("/readyz").await;
        assert_eq!(ready.status, 200, "it is ready all the same");
        let warnings = ready.json()["warnings"].as_array().cloned().unwrap_or_default();
        warnings.iter().filter_map(|text| text.as_str()).find(|text| text.contains("takes no calls")).map(str::to_owned)
    })
    .await
}

/// Rows that were called.
fn row_calls(app: &TestApp) -> Vec<Call> {
    app.upstream.calls().into_iter().filter(|call| !call.key().is_empty()).collect()
}

#[tokio::test]
async fn a_server_that_takes_no_row_loses_none_and_its_reason_is_shown() {
    let no_path = r#"{"detail":"Not Found"}"#;
    let cases = [
        (401, "", "--upstream-key"),
        (402, "", "payment"),
        (403, "", "--upstream-key"),
        (404, no_path, "path of --upstream"),
        (429, QUOTA, "quota"),
        (502, "<html>", "gateway"),
        (504, "", "gateway"),
    ];
    // An answer of the last moment of an outage can arrive after the first of the time since: that costs an attempt.
    for (status, body, reason) in cases {
        let app = TestApp::with(&["--max-retries", "1", "--max-concurrency", "8"]).await;
        let is_well = Arc::new(AtomicBool::new(false));
        let well = is_well.clone();
        app.upstream.reply(move |_| if well.load(SeqCst) { Reply::ok() } else { Reply::new(status, body) });

        let id = app.submit(rows(200)).await;
        let warned = warning(&app).await;
        let wasted = row_calls(&app).len();
        is_well.store(true, SeqCst);
        let batch = app.wait_for(&id, "completed").await;

        assert!(warned.contains(reason), "{status}: {warned}");
        assert!(wasted < 16, "{status}: {wasted} calls");
        assert_eq!(batch["request_counts"], json!({ "total": 200, "completed": 200, "failed": 0 }), "{status}");
    }
}

#[tokio::test]
async fn an_exhausted_quota_fails_rows_at_once_if_so_configured() {
    for status in [402, 429, 503] {
        let app = TestApp::with(&["--exhausted-quota", "fail", "--pause-after-alike", "0"]).await;
        app.upstream.reply(move |_| Reply::new(status, QUOTA).header("retry-after", "600"));

        let begun = Instant::now();
        let results = app.run(rows(500)).await;

        assert!(begun.elapsed() < Duration::from_secs(5), "{status}: {:?}", begun.elapsed());
        assert_eq!((results.output.len(), results.errors.len()), (0, 500), "{status}");
        for line in &results.errors {
            let response = &line["response"];
            assert_eq!((&response["status_code"], &line["error"]), (&json!(status), &Value::Null));
            assert_eq!(response["body"]["error"]["code"], "insufficient_quota");
        }
        assert_eq!(row_calls(&app).len(), 500, "{status}: each row is called once");
        assert!(app.get("/readyz").await.json()["warnings"].is_null(), "{status}: it takes calls");
    }
}

#[tokio::test]
async fn an_exhausted_quota_fails_a_response_in_the_middle_of_its_calls() {
    let flags = ["--exhausted-quota", "fail", "--ensure-schema", "--upstream-responses", "chat"];
    let app = TestApp::with(&flags).await;
    app.upstream.reply(
        |call| {
            if call.text().contains("assistant") { Reply::new(429, QUOTA) } else { Reply::chat("no") }
        },
    );
    let format = r#"{"type":"json_schema","name":"n","schema":{"type":"object","required":["n"]}}"#;
    let body = format!(r#"{{"model":"m","input":"Hi","text":{{"format":{format}}}}}"#);

    let file = app.upload(line("a").url("/v1/responses").body(&body).to_string()).await;
    let id = app.create_batch_for(&file, "/v1/responses").await;
    let batch = app.wait_for(&id, "completed").await;

    let results = app.results(&batch).await;
    assert_eq!(results.errors[0]["response"]["body"]["error"]["code"], "insufficient_quota");
    assert_eq!(row_calls(&app).len(), 2);
}

#[tokio::test]
async fn a_row_does_not_fail_for_the_quota_of_one_server_if_another_answers_it() {
    let (poor, rich) = (FakeUpstream::start(), FakeUpstream::start());
    poor.reply(|_| Reply::new(429, QUOTA));
    let tables = [table("poor", &poor, "models = ['m']"), table("rich", &rich, "models = ['m']")];
    let app = app_of(&tables, &["--exhausted-quota", "fail"]).await;

    let results = app.run(rows_of("m", 100)).await;

    assert_eq!((results.output.len(), results.errors.len()), (100, 0));
    assert!(!poor.calls().is_empty());
}

#[tokio::test]
async fn a_list_of_models_that_hangs_holds_no_row_for_long() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| match call.path.as_str() {
        "/v1/models" => Reply::ok().held(),
        _ if call.is_of("row-0") => Reply::error(403),
        _ => Reply::ok(),
    });

    let results = app.run(rows(20)).await;

    assert_eq!((results.output.len(), results.errors.len()), (19, 1));
}

#[tokio::test]
async fn a_row_that_is_refused_by_a_server_that_takes_others_is_an_error_line() {
    for status in [403, 404] {
        let app = TestApp::start().await;
        app.upstream.reply(move |call| match call.path.as_str() {
            "/v1/models" => Reply::ok(),
            _ => Reply::error(status),
        });

        let results = app.run(rows(1)).await;

        assert_eq!(results.errors[0]["response"]["status_code"], status);
    }
}

#[tokio::test]
async fn a_server_that_is_loading_answers_every_row_once_it_has_loaded() {
    let app = TestApp::with(&NO_RETRIES).await;
    let started = Instant::now();
    let loading = Duration::from_millis(1500);
    app.upstream.reply(move |_| if started.elapsed() < loading { Reply::error(503) } else { Reply::ok() });

    let results = app.run(rows(50)).await;

    assert_eq!((results.output.len(), results.errors.len()), (50, 0));
    let early = app.upstream.calls().iter().filter(|call| call.arrived < started + loading).count();
    assert!(early < 60, "{early} calls while it was loading");
}

#[tokio::test]
async fn a_wait_that_a_server_asks_for_holds_back_every_row() {
    let app = TestApp::with(&["--max-retries", "0", "--max-concurrency", "1"]).await;
    let asked = AtomicUsize::new(0);
    app.upstream.reply(move |_| match asked.fetch_add(1, SeqCst) {
        0 => Reply::error(429).header("retry-after", "1"),
        _ => Reply::ok(),
    });

    let results = app.run(rows(5)).await;

    assert_eq!(results.output.len(), 5);
    let calls = row_calls(&app);
    let waited = calls[1].arrived - calls[0].arrived;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

/// A server that takes so many calls a second, with a burst of as many.
fn takes(per_second: f64, retry_after: bool) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let bucket = Mutex::new((per_second, Instant::now()));
    move |_| {
        let mut bucket = bucket.lock().expect("nobody panics with the lock");
        let filled = bucket.0 + bucket.1.elapsed().as_secs_f64() * per_second;
        *bucket = (filled.min(per_second), Instant::now());
        if bucket.0 >= 1.0 {
            bucket.0 -= 1.0;
            return Reply::ok().after(Duration::from_millis(20));
        }
        let refused = Reply::error(429);
        if retry_after { refused.header("retry-after", "1") } else { refused }
    }
}

/// How many calls came late, and how many of them were for rows that had been called before at that time.
fn late_calls(calls: &[Call], late: Instant) -> (usize, usize) {
    let of_late = calls.iter().filter(|call| call.arrived > late);
    let refused = of_late
        .clone()
        .filter(|call| calls.iter().any(|other| other.key() == call.key() && other.attempt == call.attempt + 1));
    (of_late.count(), refused.count())
}

#[tokio::test]
async fn a_rate_limit_fails_no_row_and_is_kept() {
    for retry_after in [true, false] {
        let app = TestApp::with(&NO_RETRIES).await;
        app.upstream.reply(takes(20.0, retry_after));

        let started = Instant::now();
        let results = app.run(rows(200)).await;

        assert_eq!((results.output.len(), results.errors.len()), (200, 0));
        // The first burst is refused before anything is known; then few calls are.
        let late = started + Duration::from_secs(3);
        let calls = row_calls(&app);
        let (of_late, repeated) = late_calls(&calls, late);
        assert!(repeated * 10 <= of_late, "{repeated} of {of_late} calls were refused");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
}

/// The model that a call is for.
fn model_of(call: &Call) -> String {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    body["model"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn what_a_server_refuses_of_one_model_delays_no_other() {
    let cases = [
        Reply::error(401),
        Reply::new(429, QUOTA),
        Reply::error(429).header("retry-after", "600"),
        Reply::error(503),
        Reply::error(502),
    ];
    for refusal in cases {
        let app = TestApp::with(&["--max-retries", "0", "--max-concurrency", "8"]).await;
        let refused = refusal.clone();
        app.upstream.reply(move |call| if model_of(call) == "refused" { refused.clone() } else { Reply::ok() });

        app.submit(rows_of("refused", 100)).await;
        warning(&app).await;
        let begun = Instant::now();
        let results = app.run(rows_of("taken", 200)).await;

        assert_eq!(results.output.len(), 200, "{refusal:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{refusal:?}: {:?}", begun.elapsed());
        let wasted = row_calls(&app).iter().filter(|call| model_of(call) == "refused").count();
        assert!(wasted < 24, "{refusal:?}: {wasted} calls");
    }
}

#[tokio::test]
async fn a_row_that_fails_while_others_are_taken_is_charged() {
    let too_large = r#"{"error":{"message":"Request too large for m on tokens per min","code":"rate_limit_exceeded"}}"#;
    for (status, body) in [(429, too_large), (502, ""), (504, "")] {
        let app = TestApp::with(&["--max-retries", "1"]).await;
        app.upstream.reply(move |call| if call.is_of("row-0") { Reply::new(status, body) } else { Reply::ok() });

        let results = app.run(rows(2_000)).await;

        assert_eq!((results.output.len(), results.errors.len()), (1_999, 1), "{status}");
        assert_eq!(results.errors[0]["response"]["status_code"], status);
    }
}

#[tokio::test]
async fn a_row_of_two_calls_makes_each_once_while_calls_are_paced() {
    let app = TestApp::with(&["--ensure-schema", "--max-retries", "0"]).await;
    let (limited, taken) = (takes(20.0, false), Arc::new(AtomicUsize::new(0)));
    let counted = taken.clone();
    app.upstream.reply(move |call| {
        let reply = limited(call);
        if !reply.is_ok() {
            return reply;
        }
        counted.fetch_add(1, SeqCst);
        let is_correction = call.text().contains(r#""role":"assistant""#);
        Reply::chat(if is_correction { r#"{"n":1}"# } else { "no" })
    });
    let format = r#"{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object","required":["n"]}}}"#;
    let body = |row: usize| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{row}"}}],"response_format":{format}}}"#)
    };

    let results = app.run(file((0..60).map(|row| line(&format!("row-{row}")).body(&body(row))))).await;

    assert_eq!(results.output.len(), 60, "{:?}", results.errors.first());
    assert_eq!(taken.load(SeqCst), 120, "no call is paid for twice");
}

#[tokio::test]
async fn an_outage_between_the_calls_of_a_response_costs_none_of_its_time() {
    let flags = ["--ensure-schema", "--upstream-responses", "chat", "--max-retries", "0", "--max-response-time", "2s"];
    let app = TestApp::with(&flags).await;
    let (answered, outage) = (AtomicUsize::new(0), Mutex::new(None));
    app.upstream.reply(move |_| {
        let mut began = outage.lock().expect("nobody panics with the lock");
        let is_second = answered.load(SeqCst) == 1;
        if is_second && began.get_or_insert_with(Instant::now).elapsed() < Duration::from_secs(3) {
            return Reply::error(503);
        }
        Reply::chat(if answered.fetch_add(1, SeqCst) < 2 { "no" } else { r#"{"n":1}"# })
    });
    let format = r#"{"type":"json_schema","name":"n","schema":{"type":"object","required":["n"]}}"#;
    let body = format!(r#"{{"model":"m","input":"Hi","text":{{"format":{format}}}}}"#);

    let file = app.upload(file([line("row-0").url("/v1/responses").body(&body)])).await;
    let id = app.create_batch_for(&file, "/v1/responses").await;
    let batch = app.wait_for(&id, "completed").await;

    let results = app.results(&batch).await;
    assert_eq!(results.output.len(), 1, "{:?}", results.errors);
    assert_eq!(results.output[0]["response"]["body"]["status"], "completed");
}

#[tokio::test]
async fn a_limit_that_answers_state_is_kept_before_any_call_is_refused() {
    let app = TestApp::with(&NO_RETRIES).await;
    let bucket = Mutex::new((20.0_f64, Instant::now()));
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    app.upstream.reply(move |_| {
        let mut bucket = bucket.lock().expect("nobody panics with the lock");
        let filled = (bucket.0 + bucket.1.elapsed().as_secs_f64() * 20.0).min(20.0);
        let left = filled - 1.0;
        *bucket = (if left >= 0.0 { left } else { filled }, Instant::now());
        let reply = if left >= 0.0 { Reply::ok() } else { Reply::error(429) };
        counted.fetch_add(usize::from(left < 0.0), SeqCst);
        let reset = format!("{:.0}ms", (20.0 - bucket.0) * 50.0);
        let remaining = format!("{:.0}", bucket.0.floor());
        let headers = [("x-ratelimit-limit-requests", "20"), ("x-ratelimit-remaining-requests", &remaining)];
        let reply = headers.into_iter().fold(reply, |reply, (name, value)| reply.header(name, value));
        reply.header("x-ratelimit-reset-requests", &reset).after(Duration::from_millis(20))
    });

    let results = app.run(rows(100)).await;

    assert_eq!((results.output.len(), results.errors.len()), (100, 0));
    let refused = refused.load(SeqCst);
    assert!(refused <= 2, "{refused} calls were refused");
}

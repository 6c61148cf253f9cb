//! What a project may use: calls in a minute, rows and tokens in line, bytes, and uploads at once.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Answer, Client, send, text};
use crate::common::eventually::{eventually, until};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::raw_http::{begun_upload, exchange, open, upload_head};
use crate::common::test_app::TestApp;
use crate::upstreams::{app_of, table};

/// A service with these limits, and its upstream.
async fn app_within(limits: &str) -> (TestApp, FakeUpstream) {
    app_with(limits, &[]).await
}

async fn app_with(limits: &str, flags: &[&str]) -> (TestApp, FakeUpstream) {
    let upstream = FakeUpstream::start();
    let app = app_of(&[table("a", &upstream, "models = '*'"), limits.to_owned()], flags).await;
    (app, upstream)
}

/// The same with 6 rows under way, which stay until the upstream is released.
async fn app_with_six_rows(limits: &str) -> (TestApp, FakeUpstream, String) {
    let (app, upstream) = app_with(limits, &["--completion-windows", "24h,1s"]).await;
    upstream.reply(|_| Reply::ok().held());
    let running = app.submit(rows(6)).await;
    until("its rows to be called", || upstream.running() == 6).await;
    (app, upstream, running)
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
    let of_large = large.get("/v1/limits").await.ok()["requests_per_minute"].clone();
    assert_eq!(of_large, json!({ "limit": 100, "used": 1, "left": 99 }), "this call is one");

    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=21).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    let other = large.get("/v1/batches").await;
    assert_eq!((other.status, other.header("x-ratelimit-limit-requests")), (200, "100"));
    assert_eq!(app.get("/healthz").await.status, 200, "what no key is needed for is not counted");
}

async fn used(app: &Client, limit: &str) -> Value {
    app.get("/v1/limits").await.ok()[limit].clone()
}

#[tokio::test]
async fn a_batch_with_more_rows_than_its_project_may_have_in_line_fails_and_says_so() {
    let (app, upstream, running) = app_with_six_rows("[limits]\nqueued_rows = 10\n").await;
    assert_eq!(used(&app, "queued_rows").await, json!({ "limit": 10, "used": 6, "left": 4 }));

    let errors = [app.validation_errors(rows(5)).await, app.validation_errors(rows(11)).await];

    let said = |errors: &[Value]| (errors[0]["code"].clone(), errors[0]["message"].to_string());
    let [(code, message), (_, too_large)] = [said(&errors[0]), said(&errors[1])];
    assert_eq!(code, "row_limit_exceeded");
    assert!(message.contains("Limit: 10 enqueued rows, of which 6 are used; this batch has 5."), "{message}");
    assert!(too_large.contains("split"), "{too_large}");
    upstream.release();
    app.wait_for(&running, "completed").await;
    assert_eq!(used(&app, "queued_rows").await, json!({ "limit": 10, "used": 0, "left": 10 }));
    assert_eq!(app.run(rows(10)).await.output.len(), 10);
}

#[tokio::test]
async fn a_batch_with_more_tokens_than_its_project_may_have_in_line_fails_and_says_so() {
    let tokens = |count: usize| rows(count).len().div_ceil(4);
    let limit = tokens(10);
    let (app, upstream, running) = app_with_six_rows(&format!("[limits]\nqueued_tokens = {limit}\n")).await;
    let (six, left) = (tokens(6), limit - tokens(6));
    assert_eq!(used(&app, "queued_tokens").await, json!({ "limit": limit, "used": six, "left": left }));

    let errors = [app.validation_errors(rows(6)).await, app.validation_errors(rows(11)).await];

    let [one, too_large] = errors.map(|errors| (errors[0]["code"].clone(), errors[0]["message"].to_string()));
    assert_eq!((&one.0, &too_large.0), (&json!("token_limit_exceeded"), &json!("token_limit_exceeded")));
    let said =
        format!("Limit: {limit} enqueued tokens, of which {six} are used; this batch has about {six}. Please try");
    assert!(one.1.contains(&said), "{}", one.1);
    assert!(too_large.1.contains("split"), "{}", too_large.1);
    upstream.release();
    app.wait_for(&running, "completed").await;
    assert_eq!(used(&app, "queued_tokens").await["used"], 0);
    assert_eq!(app.run(rows(10)).await.output.len(), 10);
}

async fn reason(app: &TestApp, id: &str) -> Value {
    eventually("the batch to wait", async || {
        let reason = app.get(&format!("/v1/batches/{id}/progress")).await.ok()["reason"].clone();
        (reason["code"] == "project_limit").then_some(reason["message"].clone())
    })
    .await
}

#[tokio::test]
async fn batches_wait_for_room_in_the_order_of_their_creation() {
    let limits = "[limits]\nqueued_rows = 10\nover_limit = 'wait'\n[limits.projects.other]\nqueued_rows = 50\n";
    let (app, upstream, running) = app_with_six_rows(limits).await;
    let second = app.submit(rows(5)).await;
    let third = app.submit(rows(2)).await;

    let why = reason(&app, &second).await;
    assert!(text(&why).contains("10 rows in line (queued_rows), of which 6 are used; this batch has 5."), "{why}");
    let why = reason(&app, &third).await;
    assert!(text(&why).contains("An earlier batch of its project waits"), "{why}");
    let errors = app.validation_errors(rows(11)).await;
    assert_eq!(errors[0]["code"], "row_limit_exceeded", "it would wait for ever");
    let errors = app.validation_errors("{}\n").await;
    assert_ne!(errors[0]["code"], "row_limit_exceeded", "what is wrong is told at once");
    assert_eq!(app.batch(&third).await["status"], "validating", "it does not overtake");
    let input = app.batch(&third).await["input_file_id"].clone();
    app.delete(&format!("/v1/files/{}", text(&input))).await.ok();

    assert_eq!(app.cancel(&second).await.status, 200);
    app.wait_for(&second, "cancelled").await;
    app.wait_for_status(&third, "in_progress").await;
    let fourth = app.submit(rows(9)).await;
    reason(&app, &fourth).await;
    upstream.reply(|_| Reply::ok());
    upstream.release();
    for id in [running, third, fourth] {
        app.wait_for(&id, "completed").await;
    }
}

#[tokio::test]
async fn batches_that_wait_hold_up_no_other_project_and_expire_with_their_windows() {
    let limits = "[limits]\nqueued_rows = 10\nover_limit = 'wait'\n";
    let (app, upstream, running) = app_with_six_rows(limits).await;
    let file = app.upload(rows(5)).await;
    let brief = app.create_batch_within(&file, "1s").await;

    let batch = app.wait_for(&brief, "expired").await;

    assert_eq!(batch["request_counts"], json!({ "total": 5, "completed": 0, "failed": 0 }));
    assert_eq!(app.results(&batch).await.error_codes(), ["batch_expired"; 5]);
    assert_eq!(upstream.running(), 6, "none of its rows was called");
    let waits = app.create_batch(&file).await;
    reason(&app, &waits).await;
    upstream.reply(|_| Reply::ok());
    let other = app.client_of("other", "read,write").await;
    let of_other = other.submit(rows(7)).await;
    other.wait_for(&of_other, "completed").await;
    upstream.release();
    drop(running);
}

/// The refusal has the code, or that of Anthropic's envelope.
fn assert_is_beyond_limit(refused: &Answer, code: &str) {
    let body = refused.json();
    let error = &body["error"];
    assert_eq!(refused.header("x-should-retry"), "false");
    assert!(text(&error["message"]).contains("limit reached in project default"), "{body}");
    assert!(
        if body["type"] == "error" { error["type"] == "rate_limit_error" } else { error["code"] == code },
        "{body}"
    );
}

#[tokio::test]
async fn rows_that_come_with_their_batch_are_refused_at_once_if_there_is_no_room() {
    let parsed =
        |count| rows(count).lines().map(|row| serde_json::from_str(row).expect("JSON")).collect::<Vec<Value>>();
    let of_rows =
        |count| json!({ "requests": parsed(count), "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let messages = |count: usize| {
        let params = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "Hello" }] });
        let request = |number| json!({ "custom_id": format!("row-{number}"), "params": params });
        json!({ "requests": (0..count).map(request).collect::<Vec<_>>() })
    };
    // The limits, how many rows come; the status, and in which words.
    let cases = [
        ("queued_rows = 10", 4, 200, ""),
        ("queued_rows = 10", 5, 429, "row_limit_exceeded"),
        ("queued_rows = 10", 11, 429, "row_limit_exceeded"),
        ("queued_tokens = 400", 11, 429, "token_limit_exceeded"),
        ("queued_rows = 10\nover_limit = 'wait'", 5, 200, ""),
        ("queued_rows = 10\nover_limit = 'wait'", 11, 429, "row_limit_exceeded"),
    ];
    let bodies = |count| [("/v1/batches", of_rows(count)), ("/v1/messages/batches", messages(count))];
    let calls = cases.iter().flat_map(|case| bodies(case.1).map(|(path, body)| (case, path, body)));
    for ((limits, count, status, code), path, body) in calls {
        let (app, upstream, _) = app_with_six_rows(&format!("[limits]\n{limits}\n")).await;
        let blobs = app.blobs().len();

        let answer = app.post(path, &body).await;

        assert_eq!(answer.status, *status, "{limits} {count} {path}: {}", answer.text());
        if *status == 429 {
            assert_is_beyond_limit(&answer, code);
            until("nothing to be left", || app.blobs().len() == blobs).await;
        }
        upstream.release();
    }
}

#[tokio::test]
async fn a_repetition_returns_the_batch_whose_own_rows_leave_no_room() {
    let (app, upstream) = app_within("[limits]\nqueued_rows = 3\n").await;
    upstream.reply(|_| Reply::ok().held());
    let parsed: Vec<Value> = rows(3).lines().map(|row| serde_json::from_str(row).expect("JSON")).collect();
    let body = json!({ "requests": parsed, "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let create = async |key: &str| {
        send(app.request(Method::POST, "/v1/batches").header("idempotency-key", key).json(&body)).await
    };
    let first = create("once").await.ok();
    until("its rows to be called", || upstream.running() == 3).await;

    assert_eq!(create("once").await.ok()["id"], first["id"]);
    assert_eq!(create("twice").await.status, 429);
    upstream.release();
}

/// Everything that stores bytes, each with 700 of them or more.
async fn stored_in_every_way(app: &Client, upload: &str) -> Vec<(&'static str, Answer)> {
    let content = "x".repeat(700);
    let row =
        json!({ "custom_id": "a", "body": { "model": "m", "messages": [{ "role": "user", "content": content }] } });
    let message = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": content }] });
    let new = json!({ "filename": "a.bin", "purpose": "user_data", "bytes": 700, "mime_type": "text/plain" });
    let file = Form::new().text("purpose", "user_data").part("file", Part::bytes(vec![7; 700]).file_name("a.bin"));
    let data = Form::new().part("data", Part::bytes(vec![7; 700]).file_name("upload"));
    let part = app.request(Method::POST, &format!("/v1/uploads/{upload}/parts")).multipart(data);
    let of_rows = json!({ "requests": [row], "endpoint": "/v1/chat/completions", "completion_window": "24h" });
    let messages = json!({ "requests": [{ "custom_id": "a", "params": message }] });
    vec![
        ("a file", app.upload_form(file).await),
        ("an upload", app.post("/v1/uploads", &new).await),
        ("a part", send(part).await),
        ("requests", app.post("/v1/batches", &of_rows).await),
        ("messages", app.post("/v1/messages/batches", &messages).await),
    ]
}

#[tokio::test]
async fn a_project_stores_as_many_bytes_as_it_may_and_results_in_any_case() {
    let input = rows(4);
    let limit = input.len() + 600;
    let (app, _upstream) = app_within(&format!("[limits]\nstorage_bytes = {limit}\n")).await;
    let new = json!({ "filename": "a.bin", "purpose": "user_data", "bytes": 500, "mime_type": "text/plain" });
    let upload = text(&app.post("/v1/uploads", &new).await.ok()["id"]).to_owned();
    let file = app.upload(input.clone()).await;
    assert_eq!(used(&app, "storage_bytes").await, json!({ "limit": limit, "used": input.len(), "left": 600 }));
    let blobs = app.blobs().len();

    for (way, answer) in stored_in_every_way(&app, &upload).await {
        assert_eq!(answer.status, 400, "{way}: {}", answer.text());
        let error = &answer.json()["error"];
        assert!(error["code"] == "storage_limit_exceeded" || way == "messages", "{way}: {error}");
        let said = format!("may store {limit} bytes, of which {} are used", input.len());
        assert!(text(&error["message"]).contains(&said), "{way}: {error}");
        assert!(text(&error["message"]).contains("Delete files that are not needed any more."), "{way}: {error}");
    }

    until("nothing to be left of what was refused", || app.blobs().len() == blobs).await;
    let id = app.create_batch(&file).await;
    let batch = app.wait_for(&id, "completed").await;
    assert_eq!(app.results(&batch).await.output.len(), 4);
    let over = used(&app, "storage_bytes").await;
    assert!(over["used"].as_u64() > Some(input.len() as u64 + 300), "results count: {over}");
    for file in [&file, text(&batch["output_file_id"])] {
        app.delete(&format!("/v1/files/{file}")).await.ok();
    }
    let data = Form::new().part("data", Part::bytes(vec![7; 500]).file_name("upload"));
    send(app.request(Method::POST, &format!("/v1/uploads/{upload}/parts")).multipart(data)).await.ok();
    assert_eq!(used(&app, "storage_bytes").await["used"], 500, "parts of an open upload count");
}

#[tokio::test]
async fn an_upload_that_announces_too_many_bytes_is_refused_before_they_come() {
    let (app, _upstream) = app_within("[limits]\nstorage_bytes = '1MiB'\n").await;
    let head = upload_head("multipart/form-data; boundary=b", "Content-Length: 2200000");

    let refused = exchange(app.address, &head).await;

    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(refused.json()["error"]["code"], "storage_limit_exceeded");
}

#[tokio::test]
async fn a_project_has_so_many_uploads_under_way_and_the_others_have_theirs() {
    let (app, _upstream) = app_within("[limits]\nconcurrent_uploads = 1\n").await;
    let begun = open(app.address, begun_upload()).await;
    eventually("the upload to be under way", async || {
        (used(&app, "concurrent_uploads").await["used"] == 1).then_some(())
    })
    .await;

    let refused = app.try_upload(rows(1)).await;

    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    drop(begun);
    eventually("the upload to have ended", async || {
        (used(&app, "concurrent_uploads").await == json!({ "limit": 1, "used": 0, "left": 1 })).then_some(())
    })
    .await;
    app.upload(rows(1)).await;
}

#[tokio::test]
async fn without_limits_a_project_is_told_that_there_are_none() {
    let app = TestApp::start().await;

    let answer = app.get("/v1/limits").await;

    let unlimited = json!({ "limit": null, "used": 0, "left": null });
    let none = json!({
        "object": "limits",
        "project": "default",
        "requests_per_minute": { "limit": null, "used": null, "left": null },
        "queued_rows": unlimited,
        "queued_tokens": unlimited,
        "over_limit": "fail",
        "storage_bytes": unlimited,
        "concurrent_uploads": unlimited,
        "share": 1,
    });
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "");
    assert_eq!(answer.ok(), none);
}

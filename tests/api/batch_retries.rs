//! Batches that run rows of another batch again.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::client::{Answer, error, send, text};
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

async fn create(app: &TestApp, body: Value) -> Answer {
    app.post("/v1/batches", &body).await
}

async fn created(app: &TestApp, body: Value) -> Value {
    create(app, body).await.ok()
}

/// The lines of the input file of a batch.
async fn input(app: &TestApp, batch: &Value) -> String {
    app.content(text(&batch["input_file_id"])).await.text()
}

/// The lines of a file with these numbers.
fn lines_of(file: &str, numbers: impl IntoIterator<Item = usize>) -> String {
    let lines: Vec<&str> = file.split_inclusive('\n').collect();
    numbers.into_iter().map(|number| lines[number]).collect()
}

/// A batch of 10 rows of which `row-2` failed with a 400, `row-4` with another one, and `row-7` with a 404.
async fn with_failures(app: &TestApp) -> Value {
    app.upstream.reply(|call| {
        let refused = |code: &str| Reply::new(400, json!({ "error": { "message": "No.", "code": code } }).to_string());
        match () {
            () if call.is_of("row-2") => refused("context_length_exceeded"),
            () if call.is_of("row-4") => refused("invalid_prompt"),
            () if call.is_of("row-7") => Reply::error(422),
            () => Reply::ok(),
        }
    });
    let id = app.submit(rows(10)).await;
    let batch = app.wait_for(&id, "completed").await;
    assert_eq!(batch["request_counts"]["failed"], 3);
    app.upstream.reply(|_| Reply::ok());
    batch
}

#[tokio::test]
async fn the_rows_that_failed_run_again_byte_for_byte() {
    let app = TestApp::start().await;
    let old = with_failures(&app).await;

    for body in [json!({ "retry_of": old["id"] }), json!({ "metadata": { "retry_of": old["id"] } })] {
        let metadata = body["metadata"].clone();
        let batch = created(&app, body).await;
        let batch = app.wait_for(text(&batch["id"]), "completed").await;

        assert_eq!(input(&app, &batch).await, lines_of(&rows(10), [2, 4, 7]));
        for member in ["endpoint", "completion_window"] {
            assert_eq!(batch[member], old[member]);
        }
        assert_eq!(batch["metadata"], metadata);
        assert_ne!(batch["input_file_id"], old["input_file_id"]);
        assert_eq!(app.results(&batch).await.output_ids(), ["row-2", "row-4", "row-7"]);
        let new = app.get(&format!("/v1/files/{}", text(&batch["input_file_id"]))).await.ok();
        assert_eq!((text(&new["filename"]), text(&new["purpose"])), ("input-retry.jsonl", "batch"));
    }
}

#[tokio::test]
async fn only_rows_with_some_codes_run_again_if_the_client_says_so() {
    let app = TestApp::start().await;
    let old = with_failures(&app).await;
    let cases: [(&[&str], &[usize]); 4] = [
        (&["context_length_exceeded"], &[2]),
        (&["invalid_prompt", "context_length_exceeded", "unknown"], &[2, 4]),
        (&["http_status"], &[2, 4, 7]),
        (&["batch_expired"], &[]),
    ];
    for (codes, expected) in cases {
        let answer = create(&app, json!({ "retry_of": old["id"], "retry": { "codes": codes } })).await;

        if expected.is_empty() {
            let id = text(&old["id"]);
            let message =
                format!("No row of '{id}' is to be run again: none failed or was left with one of these codes.");
            assert_eq!((answer.status, answer.json()), (400, error(&message, Some("retry_of"), None)));
        } else {
            assert_eq!(input(&app, &answer.ok()).await, lines_of(&rows(10), expected.iter().copied()), "{codes:?}");
        }
    }
}

#[tokio::test]
async fn members_of_the_body_are_replaced_and_all_else_stays() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::error(400));
    let body = r#"{"model":"m","messages":[],"max_tokens":5,"temperature":0.10,"n":12345678901234567890}"#;
    let id = app.submit(file([line("a").body(body), line("b").body(body)])).await;
    app.wait_for(&id, "completed").await;

    // As text, because a number that is parsed may become another one.
    let members = r#"{"model":"larger","max_tokens":null,"top_p":0.10,
        "big":12345678901234567890123,"stop":["a\n",
        "b"]}"#;
    let create = format!(r#"{{"retry_of":"{id}","retry":{{"body":{members}}}}}"#);
    let batch = send(app.request(Method::POST, "/v1/batches").body(create)).await.ok();

    let changed = r#"{"model":"larger","messages":[],"temperature":0.10,"n":12345678901234567890,"#;
    let changed = &format!(r#"{changed}"top_p":0.10,"big":12345678901234567890123,"stop":["a\n",         "b"]}}"#);
    assert_eq!(input(&app, &batch).await, file([line("a").body(changed), line("b").body(changed)]));
    let batch = app.wait_for(text(&batch["id"]), "completed").await;
    assert_eq!(batch["model"], "larger");
}

#[tokio::test]
async fn rows_that_never_ran_run_again() {
    let app = TestApp::with(&["--completion-windows", "1s,24h", "--max-concurrency", "4"]).await;
    app.upstream.reply(|call| if call.is_of("row-0") { Reply::ok() } else { Reply::ok().held() });
    let file_id = app.upload(rows(20)).await;
    let expired = app.create_batch_within(&file_id, "1s").await;
    app.wait_for(&expired, "expired").await;
    let cancelled = app.create_batch(&file_id).await;
    app.wait_for_completed(&cancelled, 1).await;
    app.cancel(&cancelled).await.ok();
    app.wait_for(&cancelled, "cancelled").await;
    app.upstream.release();

    for old in [expired, cancelled] {
        let batch = created(&app, json!({ "retry_of": old, "completion_window": "24h" })).await;

        assert_eq!(batch["completion_window"], "24h");
        assert_eq!(input(&app, &batch).await, lines_of(&rows(20), 1..20));
        let batch = app.wait_for(text(&batch["id"]), "completed").await;
        assert_eq!(batch["request_counts"], json!({ "total": 19, "completed": 19, "failed": 0 }));
    }
}

#[tokio::test]
async fn a_retry_of_a_retry_runs_what_failed_again() {
    let app = TestApp::start().await;
    let first = with_failures(&app).await;
    app.upstream.reply(|call| if call.is_of("row-4") { Reply::error(400) } else { Reply::ok() });
    let second = created(&app, json!({ "retry_of": first["id"] })).await;
    app.wait_for(text(&second["id"]), "completed").await;

    let third = created(&app, json!({ "retry_of": second["id"] })).await;

    assert_eq!(input(&app, &third).await, lines_of(&rows(10), [4]));
    let name = app.get(&format!("/v1/files/{}", text(&third["input_file_id"]))).await.ok();
    assert_eq!(name["filename"], "input-retry.jsonl");
}

#[tokio::test]
async fn rows_are_counted_as_they_were_at_their_upload() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| if call.is_of("row-1") { Reply::error(400) } else { Reply::ok() });
    let blank = " ".repeat(5000);
    let text_of = |number: usize| line(&format!("row-{number}")).to_string();
    let input_file = format!("\u{feff}{}\r\n\r\n{blank}\n{}\r\n\n{}", text_of(0), text_of(1), text_of(2));
    let id = app.submit(input_file).await;
    app.wait_for(&id, "completed").await;

    let batch = created(&app, json!({ "retry_of": id })).await;

    assert_eq!(input(&app, &batch).await, file([line("row-1")]));
}

#[tokio::test]
async fn a_key_makes_one_batch_and_one_file() {
    let app = TestApp::start().await;
    let old = with_failures(&app).await;
    let create = async |body: Value| {
        let request = app.request(Method::POST, "/v1/batches").header("idempotency-key", "once");
        send(request.json(&body)).await
    };
    let body = json!({ "retry_of": old["id"], "retry": { "codes": ["invalid_prompt"] } });

    let (first, second) = futures::join!(create(body.clone()), create(body.clone()));
    let third = create(body).await.ok();
    let other = create(json!({ "retry_of": old["id"] })).await;

    assert_eq!((&first.ok()["id"], &second.ok()["id"]), (&third["id"], &third["id"]));
    assert_eq!((other.status, &other.json()["error"]["code"]), (409, &json!("idempotency_key_reused")));
    let files = app.get("/v1/files?purpose=batch").await.ok();
    assert_eq!(files["data"].as_array().map(Vec::len), Some(2), "{files}");
}

#[tokio::test]
async fn what_cannot_be_run_again_is_refused_with_what_to_do() {
    let app = TestApp::start().await;
    let completed = app.submit(rows(2)).await;
    app.wait_for(&completed, "completed").await;
    let failed = app.submit("{}\n").await;
    app.wait_for(&failed, "failed").await;
    let old = with_failures(&app).await;
    let no_input = with_failures(&app).await;
    app.delete(&format!("/v1/files/{}", text(&no_input["input_file_id"]))).await.ok();
    let no_errors = with_failures(&app).await;
    app.delete(&format!("/v1/files/{}", text(&no_errors["error_file_id"]))).await.ok();
    app.upstream.reply(|_| Reply::ok().held());
    let running = app.submit(rows(1)).await;
    until("a call to run", || app.upstream.running() == 1).await;
    let id = |batch: &Value| text(&batch["id"]).to_owned();
    let (old, no_input, no_errors) = (id(&old), id(&no_input), id(&no_errors));
    let unknown = "batch_0123456789abcdef0123456789abcdef";
    let cases = [
        (json!({ "retry_of": unknown }), "retry_of", "No batch found"),
        (json!({ "retry_of": "what" }), "retry_of", "No batch found"),
        (json!({ "retry_of": 5 }), "retry_of", "expected a string"),
        (json!({ "metadata": { "retry_of": "what" } }), "metadata.retry_of", "No batch found"),
        (json!({ "retry_of": old, "metadata": { "retry_of": unknown } }), "metadata.retry_of", "another batch"),
        (json!({ "retry_of": running }), "retry_of", "Wait until it has ended, or cancel it"),
        (json!({ "retry_of": completed }), "retry_of", "none failed"),
        (json!({ "retry_of": failed }), "retry_of", "none failed"),
        (json!({ "retry_of": no_input }), "retry_of", "Upload its rows again"),
        (json!({ "retry_of": no_errors }), "retry_of", "Upload the rows"),
        (json!({ "retry_of": old, "input_file_id": "file-1" }), "input_file_id", "leave it out"),
        (json!({ "retry_of": old, "endpoint": "/v1/embeddings" }), "endpoint", "leave it out"),
        (json!({ "retry_of": old, "completion_window": "1y" }), "completion_window", "Supported values"),
        (json!({ "retry_of": old, "retry": 1 }), "retry", "expected an object"),
        (json!({ "retry_of": old, "retry": { "codes": [] } }), "retry.codes", "Leave it out"),
        (json!({ "retry_of": old, "retry": { "codes": [1] } }), "retry.codes", "an array of strings"),
        (json!({ "retry_of": old, "retry": { "codes": "a" } }), "retry.codes", "expected an array"),
        (json!({ "retry_of": old, "retry": { "body": [] } }), "retry.body", "expected an object"),
        (json!({ "retry_of": old, "retry": { "body": { "a": "x".repeat(70_000) } } }), "retry", "65536 bytes"),
    ];
    for (body, param, message) in cases {
        let answer = create(&app, body.clone()).await;

        let error = answer.json()["error"].clone();
        let status = if message == "No batch found" { 404 } else { 400 };
        assert_eq!((answer.status, text(&error["param"])), (status, param), "{error}");
        assert!(text(&error["message"]).contains(message), "{error}");
    }
    app.upstream.release();
}

/// The rows in an answer with lines, each with whether it has an error.
fn outcomes(lines: &Answer) -> Vec<(String, bool)> {
    assert_eq!(lines.status, 200, "{}", lines.text());
    let lines = lines.text();
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        (text(&line["custom_id"]).to_owned(), line["response"]["status_code"] != 200)
    };
    lines.lines().map(read).collect()
}

#[tokio::test]
async fn merged_results_have_each_row_as_it_was_run_last() {
    let app = TestApp::start().await;
    let first = with_failures(&app).await;
    app.upstream.reply(|call| if call.is_of("row-4") { Reply::error(400) } else { Reply::ok() });
    let second = created(&app, json!({ "retry_of": first["id"] })).await;
    app.wait_for(text(&second["id"]), "completed").await;
    app.upstream.reply(|_| Reply::ok());
    let codes = json!({ "codes": ["http_status"] });
    let third = created(&app, json!({ "retry_of": second["id"], "retry": codes })).await;
    app.wait_for(text(&third["id"]), "completed").await;

    for (batch, failed) in [(first, &[2, 4, 7][..]), (second, &[4]), (third, &[])] {
        let lines = app.get(&format!("/v1/batches/{}/results?merge=true", text(&batch["id"]))).await;

        let expected: Vec<_> = (0..10).map(|row| (format!("row-{row}"), failed.contains(&row))).collect();
        assert_eq!(outcomes(&lines), expected);
    }
}

#[tokio::test]
async fn results_are_merged_whole_and_once_the_batch_has_ended() {
    let app = TestApp::start().await;
    let old = with_failures(&app).await;
    app.upstream.reply(|_| Reply::ok().held());
    let running = created(&app, json!({ "retry_of": old["id"] })).await;
    let cases = [
        (&running, "merge=true", "order"),
        (&old, "merge=yes", "merge"),
        (&old, "merge=true&kind=errors", "kind"),
        (&old, "merge=true&limit=1", "limit"),
    ];
    for (batch, query, param) in cases {
        let answer = app.get(&format!("/v1/batches/{}/results?{query}", text(&batch["id"]))).await;

        assert_eq!((answer.status, text(&answer.json()["error"]["param"])), (400, param), "{}", answer.text());
    }
    app.upstream.release();
}

//! Looking inside a batch: one request of it, and a response that it made.

use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::client::{error, new_batch, text};
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

async fn request(app: &TestApp, batch_id: &str, custom_id: &str) -> Value {
    app.get(&format!("/v1/batches/{batch_id}/requests/{custom_id}")).await.ok()
}

/// The lines of a result file, as they stand there.
async fn lines(app: &TestApp, file_id: &Value) -> Vec<String> {
    app.content(text(file_id)).await.text().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_request_is_watched_from_pending_to_its_result() {
    let app = TestApp::with(&["--max-concurrency", "1"]).await;
    app.upstream.reply(|call| if call.is_of("row-0") { Reply::ok() } else { Reply::ok().held() });
    let id = app.submit(rows(2)).await;
    app.wait_for_completed(&id, 1).await;
    until("the second row to run", || app.upstream.running() == 1).await;

    let done = request(&app, &id, "row-0").await;
    let running = request(&app, &id, "row-1").await;

    assert_eq!(done["state"], "completed");
    assert_eq!(done["result"]["custom_id"], "row-0");
    let expected = json!({
        "object": "batch.request",
        "id": format!("batch_req_{}00000001", &id["batch_".len() + 8..]),
        "batch_id": id,
        "custom_id": "row-1",
        "row": 1,
        "state": "in_progress",
        "attempts": null,
        "result": null,
    });
    assert_eq!(running, expected);
}

#[tokio::test]
async fn a_request_that_nobody_runs_is_pending() {
    let app = TestApp::with(&["--role", "api"]).await;
    let id = app.submit(rows(3)).await;

    let waiting = request(&app, &id, "row-2").await;

    assert_eq!((&waiting["state"], &waiting["row"], &waiting["result"]), (&json!("pending"), &json!(2), &json!(null)));
}

#[tokio::test]
async fn a_result_is_the_line_as_it_stands_in_its_file() {
    let app = TestApp::with(&["--max-retries", "0"]).await;
    let answer = r#"{"choices":[{}],"z":1.10,"n":12345678901234567890, "s":"\u00e9"}"#;
    app.upstream.reply(move |call| if call.is_of("bad") { Reply::error(400) } else { Reply::new(200, answer) });
    let id = app.submit(file([line("good"), line("bad")])).await;
    let batch = app.wait_for(&id, "completed").await;

    for (custom_id, state, file) in [("good", "completed", "output_file_id"), ("bad", "failed", "error_file_id")] {
        let answer = app.get(&format!("/v1/batches/{id}/requests/{custom_id}")).await;

        assert_eq!(answer.ok()["state"], state);
        let line = &lines(&app, &batch[file]).await[0];
        assert!(answer.text().ends_with(&format!(r#""attempts":null,"result":{line}}}"#)), "{}", answer.text());
    }
}

#[tokio::test]
async fn requests_that_never_ran_are_cancelled_or_expired() {
    let app = TestApp::with(&["--max-concurrency", "1", "--completion-windows", "24h,1s"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let file_id = app.upload(rows(3)).await;
    for (window, state) in [("24h", "cancelled"), ("1s", "expired")] {
        let id = app.create_batch_within(&file_id, window).await;
        app.wait_for_status(&id, "in_progress").await;
        if state == "cancelled" {
            app.cancel(&id).await.ok();
        }
        app.wait_for(&id, state).await;

        let never_ran = request(&app, &id, "row-2").await;

        assert_eq!(never_ran["state"], state);
        assert_eq!(never_ran["result"]["error"]["code"], format!("batch_{state}"));
    }
}

#[tokio::test]
async fn requests_of_a_batch_called_off_while_it_is_validated_are_cancelled() {
    let app = TestApp::with(&["--role", "api"]).await;
    let id = app.submit(rows(2)).await;
    app.cancel(&id).await.ok();
    let app = app.stop().await.start(&[]).await;
    app.wait_for(&id, "cancelled").await;

    let never_ran = request(&app, &id, "row-1").await;

    assert_eq!((&never_ran["state"], &never_ran["row"]), (&json!("cancelled"), &json!(1)));
    assert_eq!(never_ran["result"]["error"]["code"], "batch_cancelled");
}

#[tokio::test]
async fn requests_of_a_batch_whose_input_is_bad_share_its_state() {
    let app = TestApp::with(&["--role", "api"]).await;
    let bad = app.upload(file([line("row-0"), line("row-0")])).await;
    let (called_off, refused) = (app.create_batch(&bad).await, app.create_batch(&bad).await);
    app.cancel(&called_off).await.ok();
    let app = app.stop().await.start(&[]).await;

    for (id, state) in [(called_off, "cancelled"), (refused, "failed")] {
        app.wait_for(&id, state).await;
        let never_ran = request(&app, &id, "row-0").await;

        assert_eq!((&never_ran["state"], &never_ran["result"]), (&json!(state), &Value::Null));
    }
}

#[tokio::test]
async fn a_custom_id_of_any_characters_is_found_by_its_encoded_form() {
    let app = TestApp::start().await;
    let id = app.submit(file([line("a/b c?é%"), line("..%2f"), line(r#"q\"\\"#)])).await;
    app.wait_for(&id, "completed").await;
    let cases = [("a%2Fb%20c%3F%C3%A9%25", "a/b c?é%"), ("..%252f", "..%2f"), ("q%22%5C", "q\"\\")];

    for (encoded, custom_id) in cases {
        let found = request(&app, &id, encoded).await;

        assert_eq!((&found["custom_id"], &found["state"]), (&json!(custom_id), &json!("completed")));
        assert_eq!(found["result"]["custom_id"], custom_id);
    }
}

#[tokio::test]
async fn requests_and_batches_that_are_not_there_are_not_found() {
    let app = TestApp::start().await;
    let id = app.submit(rows(1)).await;
    let unknown = format!("batch_{}", "0".repeat(32));
    let cases = [
        (format!("/v1/batches/{id}/requests/row-1"), format!("No request with custom_id 'row-1' in batch '{id}'.")),
        (format!("/v1/batches/{unknown}/requests/row-0"), format!("No batch found with id '{unknown}'.")),
    ];

    for (path, message) in cases {
        let answer = app.get(&path).await;

        assert_eq!((answer.status, answer.json()), (404, error(&message, None, None)));
    }
    assert_eq!(app.get("/v1/batches/wrong/requests/row-0").await.status, 400);
    let not_a_file = app.post("/v1/batches", &new_batch("file-1", "24h")).await.ok();
    assert_eq!(app.get(&format!("/v1/batches/{}/requests/x", text(&not_a_file["id"]))).await.status, 404);
}

#[tokio::test]
async fn a_request_whose_result_file_was_deleted_is_not_found() {
    let app = TestApp::start().await;
    let id = app.submit(rows(1)).await;
    let batch = app.wait_for(&id, "completed").await;
    app.delete(&format!("/v1/files/{}", text(&batch["output_file_id"]))).await.ok();

    let answer = app.get(&format!("/v1/batches/{id}/requests/row-0")).await;

    let message = "The file with the result of request 'row-0' was deleted or has expired.";
    assert_eq!((answer.status, answer.json()), (404, error(message, None, None)));
}

/// A response that says nothing, and has no id.
fn other_response() -> Reply {
    Reply::new(200, r#"{"output":[]}"#)
}

/// A batch of two responses, and the id that the first has here. The upstream answers the first with what `body` makes
/// of that id, and the second with `other`.
async fn batch_of_responses(app: &TestApp, body: fn(&str) -> String, other: Reply) -> (String, String) {
    let row =
        |name: &str| line(name).url("/v1/responses").body(&format!(r#"{{"model":"m","input":"Hello from {name}"}}"#));
    let mut new = new_batch(&app.upload(file([row("first"), row("second")])).await, "24h");
    new["endpoint"] = "/v1/responses".into();
    // Until the id of the batch is known.
    app.upstream.reply(|_| Reply::error(503).header("retry-after", "0"));
    let batch = app.post("/v1/batches", &new).await.ok();
    let batch_id = text(&batch["id"]).to_owned();
    let response_id = format!("resp_{}00000000", &batch_id["batch_".len()..]);
    let first = Reply::new(200, body(&response_id));
    app.upstream.reply(move |call| if call.is_of("first") { first.clone() } else { other.clone() });
    (batch_id, response_id)
}

#[tokio::test]
async fn a_response_is_found_by_its_id_byte_for_byte() {
    let app = TestApp::start().await;
    let body = |id: &str| format!(r#"{{"object":"response", "id":"{id}","n":1.10,"output":[]}}"#);
    let (batch_id, id) = batch_of_responses(&app, body, other_response()).await;
    app.wait_for(&batch_id, "completed").await;

    let answer = app.get(&format!("/v1/responses/{id}")).await;

    assert_eq!((answer.status, answer.text()), (200, body(&id)));
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_response_is_found_while_its_batch_runs() {
    let app = TestApp::start().await;
    let (batch_id, id) =
        batch_of_responses(&app, |id| format!(r#"{{"id":"{id}","output":[]}}"#), other_response().held()).await;
    app.wait_for_completed(&batch_id, 1).await;

    let response = app.get(&format!("/v1/responses/{id}")).await.ok();

    assert_eq!(response, json!({ "id": id, "output": [] }));
    assert_eq!(app.batch(&batch_id).await["status"], "in_progress");
}

#[tokio::test]
async fn responses_that_were_not_made_here_are_not_found() {
    let app = TestApp::start().await;
    let (batch_id, of_the_upstream) =
        batch_of_responses(&app, |_| r#"{"id":"resp_1","output":[]}"#.to_owned(), other_response()).await;
    app.wait_for(&batch_id, "completed").await;
    let unknown = format!("resp_{}", "0".repeat(40));

    for id in [&of_the_upstream, &unknown, "resp_1", "x"] {
        let answer = app.get(&format!("/v1/responses/{id}")).await;

        assert_eq!(
            (answer.status, answer.json()),
            (404, error(&format!("Response with id '{id}' not found."), None, None))
        );
    }
}

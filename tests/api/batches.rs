//! Creating, reading and listing batches.

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::client::{Answer, error, new_batch, send, text};
use crate::common::eventually::until;
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

const KEYS: [&str; 22] = [
    "id",
    "object",
    "endpoint",
    "model",
    "errors",
    "input_file_id",
    "completion_window",
    "status",
    "output_file_id",
    "error_file_id",
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
    "request_counts",
    "usage",
    "metadata",
];

async fn create_with_key(app: &TestApp, key: &str, new: &Value) -> Answer {
    send(app.request(Method::POST, "/v1/batches").header("Idempotency-Key", key).json(new)).await
}

fn assert_has_all_keys(answer: &Answer) {
    let text = answer.text();
    let places: Vec<_> = KEYS.iter().map(|key| text.find(&format!("\"{key}\":"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    assert_eq!(answer.json().as_object().map(serde_json::Map::len), Some(KEYS.len()), "{text}");
}

#[tokio::test]
async fn a_batch_has_its_22_keys_from_creation_to_its_end() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;

    let created = app.post("/v1/batches", &new_batch(&file_id, "24h")).await;
    let id = text(&created.json()["id"]).to_owned();
    app.wait_for(&id, "completed").await;
    let completed = app.get(&format!("/v1/batches/{id}")).await;

    assert_has_all_keys(&created);
    assert_has_all_keys(&completed);
}

#[tokio::test]
async fn a_new_batch_is_validating_with_nothing_counted() {
    let app = TestApp::with(&["--role", "api"]).await;
    let mut new = new_batch(&app.upload(rows(1)).await, "24h");
    new["metadata"] = json!({ "b": "1", "a": "2" });

    let batch = app.post("/v1/batches", &new).await.ok();

    let zeros = json!({
        "input_tokens": 0,
        "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": 0,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": 0,
    });
    let created_at = batch["created_at"].as_i64().expect("a time");
    assert!(text(&batch["id"]).starts_with("batch_"), "{batch}");
    assert_eq!(batch["object"], "batch");
    assert_eq!(batch["status"], "validating");
    assert_eq!(batch["expires_at"], created_at + 86_400);
    assert_eq!(batch["request_counts"], json!({ "total": 0, "completed": 0, "failed": 0 }));
    assert_eq!(batch["usage"], zeros);
    assert_eq!(batch["metadata"], new["metadata"]);
    for unset in ["model", "errors", "output_file_id", "error_file_id", "in_progress_at", "completed_at"] {
        assert_eq!(batch[unset], Value::Null, "{unset}");
    }
}

#[tokio::test]
async fn a_completed_batch_tells_its_times_counts_model_and_usage() {
    let app = TestApp::start().await;
    app.upstream.reply(|call| if call.is_of("row-2") { Reply::error(400) } else { Reply::ok() });

    let id = app.submit(rows(3)).await;
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["model"], "m");
    assert_eq!(batch["request_counts"], json!({ "total": 3, "completed": 2, "failed": 1 }));
    assert_eq!(batch["usage"]["input_tokens"], 6);
    assert_eq!(batch["usage"]["output_tokens"], 4);
    assert_eq!(batch["usage"]["total_tokens"], 10);
    for set in ["output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "completed_at"] {
        assert!(!batch[set].is_null(), "{set}");
    }
    for unset in ["failed_at", "expired_at", "cancelling_at", "cancelled_at", "errors", "metadata"] {
        assert_eq!(batch[unset], Value::Null, "{unset}");
    }
}

#[tokio::test]
async fn a_batch_whose_rows_all_fail_completes_without_an_output_file() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::error(400));

    let id = app.submit(rows(2)).await;
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["output_file_id"], Value::Null);
    assert_eq!(app.results(&batch).await.errors.len(), 2);
}

#[tokio::test]
async fn an_input_file_that_is_not_there_fails_the_batch() {
    let app = TestApp::start().await;

    for file_id in ["file-0000000000000000000000", "file_of_somebody_else"] {
        let id = app.create_batch(file_id).await;
        let batch = app.wait_for(&id, "failed").await;

        let message = format!("Cannot find file {file_id}, or you do not have access to it.");
        let expected = json!([{ "code": "invalid_request", "message": message, "param": "file_id", "line": null }]);
        assert_eq!(batch["errors"]["data"], expected);
        assert_eq!(batch["input_file_id"], file_id);
    }
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_batch() {
    let app = TestApp::start().await;
    let new = new_batch(&app.upload(rows(1)).await, "24h");

    let first = create_with_key(&app, "k", &new).await.ok();
    app.wait_for(text(&first["id"]), "completed").await;
    let second = create_with_key(&app, "k", &new).await.ok();

    assert_eq!(second["id"], first["id"]);
    assert_eq!(second["status"], "completed");
    assert_eq!(app.get("/v1/batches").await.ok()["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn metadata_comes_back_in_its_order_which_makes_no_other_batch() {
    let app = TestApp::with(&["--role", "api"]).await;
    let new = new_batch(&app.upload(rows(1)).await, "24h").to_string();
    let create = async |metadata: &str| {
        let body = format!(r#"{},"metadata":{metadata}}}"#, new.strip_suffix('}').expect("an object"));
        let request = app.request(Method::POST, "/v1/batches").header("Idempotency-Key", "k");
        send(request.header("content-type", "application/json").body(body)).await
    };

    let first = create(r#"{"z":"1","a":"2","m":"3"}"#).await;
    let second = create(r#"{"a":"2","m":"3","z":"1"}"#).await;
    let other = create(r#"{"z":"1","a":"2","m":"4"}"#).await;

    assert!(first.text().contains(r#""metadata":{"z":"1","a":"2","m":"3"}"#), "{first:?}");
    assert_eq!((second.status, second.text()), (200, first.text()));
    assert_eq!(other.status, 409, "{other:?}");
}

#[tokio::test]
async fn an_idempotency_key_with_other_parameters_is_refused() {
    let app = TestApp::start().await;
    let new = new_batch(&app.upload(rows(1)).await, "24h");
    create_with_key(&app, "k", &new).await.ok();
    let mut others = [new.clone(), new.clone(), new.clone(), new];
    others[0]["metadata"] = json!({ "a": "b" });
    others[1]["completion_window"] = json!("1h");
    others[2]["input_file_id"] = json!("file-1");
    others[3]["output_expires_after"] = json!({ "anchor": "created_at", "seconds": 3600 });

    for other in others {
        let answer = create_with_key(&app, "k", &other).await;

        let message = "The Idempotency-Key was used before, for another request. Use a fresh key for this one.";
        assert_eq!((answer.status, answer.json()), (409, error(message, None, Some("idempotency_key_reused"))));
    }
}

#[tokio::test]
async fn without_an_idempotency_key_equal_requests_make_two_batches() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;

    let (first, second) = (app.create_batch(&file_id).await, app.create_batch(&file_id).await);

    assert_ne!(first, second);
}

#[tokio::test]
async fn the_input_file_of_a_running_batch_may_be_deleted() {
    let app = TestApp::with(&["--max-concurrency", "1"]).await;
    app.upstream.reply(|_| Reply::ok().held());
    let file_id = app.upload(rows(50)).await;
    let id = app.create_batch(&file_id).await;
    until("the first row to be sent", || app.upstream.running() == 1).await;

    app.delete(&format!("/v1/files/{file_id}")).await.ok();
    app.upstream.release();
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["input_file_id"], file_id);
    assert!(app.verify(&rows(50), &batch).await.holds());
}

#[tokio::test]
async fn rows_may_name_several_models() {
    let app = TestApp::start().await;
    let input = file((0..20).map(|row| line(&format!("row-{row}")).model(["a", "b", "c"][row % 3])));

    let id = app.submit(input.clone()).await;
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["model"], Value::Null);
    assert_eq!(batch["request_counts"]["completed"], 20);
    assert!(app.verify(&input, &batch).await.holds());
    let calls = app.upstream.calls();
    for model in ["a", "b", "c"] {
        let mentions = format!("\"model\":\"{model}\"");
        assert!(calls.iter().any(|call| call.text().contains(&mentions)), "{model}");
    }
}

#[tokio::test]
async fn with_single_model_a_second_model_fails_the_batch() {
    let app = TestApp::with(&["--single-model"]).await;

    let errors = app.validation_errors(file([line("a"), line("b").model("other"), line("c")])).await;

    let message = "The model 'other' for this request does not match the rest of the batch. \
                   Each batch must contain requests for a single model.";
    let expected = json!({ "code": "mismatched_model", "message": message, "param": "body.model", "line": 2 });
    assert_eq!(errors, [expected]);
}

#[tokio::test]
async fn batches_are_listed_newest_first_in_pages() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.insert(0, app.create_batch(&file_id).await);
    }

    let mut listed: Vec<String> = Vec::new();
    loop {
        let after = listed.last().map(|id| format!("&after={id}")).unwrap_or_default();
        let page = app.get(&format!("/v1/batches?limit=2{after}")).await.ok();
        let ids: Vec<_> = page["data"].as_array().expect("a list").iter().map(|batch| text(&batch["id"])).collect();
        assert_eq!((text(&page["first_id"]), text(&page["last_id"])), (ids[0], ids[ids.len() - 1]));
        listed.extend(ids.into_iter().map(str::to_owned));
        if page["has_more"] == false {
            break;
        }
    }

    assert_eq!(listed, created);
}

#[tokio::test]
async fn an_empty_page_says_that_there_is_no_more() {
    let app = TestApp::start().await;
    app.submit(rows(1)).await;

    for path in ["/v1/batches?limit=0", "/v1/batches?after=batch_x", "/v1/files?limit=0", "/v1/files?purpose=none"] {
        let page = app.get(path).await.ok();

        let empty = json!({ "object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false });
        assert_eq!(page, empty, "{path}");
    }
}

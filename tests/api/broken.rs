//! One broken thing stops nothing else: a blob that is gone, a row of the database that cannot be read.

use std::path::PathBuf;

use batchwright::domain::ids::{BatchId, FileId};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use uuid::Uuid;

use crate::common::builders::{file, line, rows};
use crate::common::client::text;
use crate::common::eventually::eventually;
use crate::common::fake_upstream::Reply;
use crate::common::test_app::TestApp;

const GOOD: usize = 5;
/// Rows that the upstream holds all begin, although it has answered none.
const ALL_AT_ONCE: [&str; 2] = ["--concurrency", "fixed"];

/// The blobs of an uploaded batch input file.
struct Stored {
    id: String,
    content: PathBuf,
    index: PathBuf,
}

async fn upload(app: &TestApp, input: &str) -> Stored {
    let before = app.blobs();
    let id = app.upload(input).await;
    let made: Vec<PathBuf> = app.blobs().into_iter().filter(|path| !before.contains(path)).collect();
    let is_content = |path: &&PathBuf| std::fs::read(path).expect("it is there") == input.as_bytes();
    let content = made.iter().find(is_content).expect("the bytes are kept").clone();
    let index = made.into_iter().find(|path| *path != content).expect("it is indexed");
    Stored { id, content, index }
}

/// Rows that the upstream holds, beside others that it answers.
fn held(count: usize) -> String {
    file((0..count).map(|no| line(&format!("held-{no}"))))
}

fn hold_the_held(app: &TestApp) {
    app.upstream.reply(|call| if call.text().contains("held-") { Reply::ok().held() } else { Reply::ok() });
}

/// Some batches that nothing is wrong with, to their end.
async fn good_ones_end(app: &TestApp) {
    let mut good = Vec::new();
    for _ in 0..GOOD {
        good.push(app.submit(rows(3)).await);
    }
    for id in good {
        let batch = app.wait_for(&id, "completed").await;
        assert!(app.verify(&rows(3), &batch).await.holds());
    }
}

/// Waits for the end of a batch whose rows cannot be read, and returns it with the codes of its error lines.
async fn ended(app: &TestApp, id: &str, status: &str, input: &str) -> (Value, Vec<String>) {
    let batch = app.wait_for(id, status).await;
    let verdict = app.verify(input, &batch).await;
    assert!(verdict.holds(), "{verdict}");
    let codes = app.results(&batch).await.error_codes().into_iter().map(str::to_owned).collect();
    (batch, codes)
}

async fn cancelled_batches_without_input(count: usize) {
    let app = TestApp::with(&ALL_AT_ONCE).await;
    hold_the_held(&app);
    let input = held(1);
    let stored = upload(&app, &input).await;
    let mut broken = Vec::new();
    for _ in 0..count {
        broken.push(app.create_batch(&stored.id).await);
    }
    for id in &broken {
        app.wait_for_status(id, "in_progress").await;
    }
    eventually("all rows to be called", async || (app.upstream.running() == count).then_some(())).await;
    std::fs::remove_file(&stored.content).expect("it is there");
    for id in &broken {
        app.cancel(id).await.ok();
    }

    good_ones_end(&app).await;
    for id in &broken {
        let (batch, codes) = ended(&app, id, "cancelled", &input).await;
        assert_eq!(codes, ["input_unavailable"]);
        assert_eq!(batch["request_counts"], json!({ "total": 1, "completed": 0, "failed": 0 }));
    }
}

#[tokio::test]
async fn a_batch_without_its_input_ends_and_keeps_no_other_from_its_end() {
    cancelled_batches_without_input(1).await;
}

#[tokio::test]
async fn more_batches_without_input_than_are_looked_at_together_hide_no_other() {
    cancelled_batches_without_input(70).await;
}

#[tokio::test]
async fn a_broken_batch_is_a_warning_and_the_service_is_ready() {
    let app = TestApp::start().await;
    hold_the_held(&app);
    let stored = upload(&app, &held(1)).await;
    let id = app.create_batch(&stored.id).await;
    // Not before its row was read: else it is the run loop that cannot read it.
    eventually("its row to be called", async || (app.upstream.running() == 1).then_some(())).await;
    // It is there and cannot be read: that may pass, so that the batch waits.
    std::fs::remove_file(&stored.content).expect("it is there");
    std::fs::create_dir(&stored.content).expect("it can be made");
    app.cancel(&id).await.ok();

    let answer = eventually("a warning", async || {
        let answer = app.get("/readyz").await.ok();
        answer.get("warnings").is_some().then_some(answer)
    })
    .await;

    assert_eq!(answer["status"], "ready");
    assert!(text(&answer["warnings"][0]).contains("the finalize loop could not deal with 1 of its items"), "{answer}");
    good_ones_end(&app).await;
    assert_eq!(app.batch(&id).await["status"], "cancelling");

    std::fs::remove_dir(&stored.content).expect("it is empty");
    std::fs::write(&stored.content, held(1)).expect("it can be written");
    let (_, codes) = ended(&app, &id, "cancelled", &held(1)).await;
    assert_eq!(codes, ["batch_cancelled"]);
}

#[tokio::test]
async fn a_batch_without_its_index_ends_with_the_names_of_its_rows() {
    let app = TestApp::start().await;
    hold_the_held(&app);
    let input = "\n".to_owned() + &held(3);
    let stored = upload(&app, &input).await;
    let id = app.create_batch(&stored.id).await;
    eventually("all rows to be called", async || (app.upstream.running() == 3).then_some(())).await;
    std::fs::remove_file(&stored.index).expect("it is there");
    app.cancel(&id).await.ok();

    good_ones_end(&app).await;
    let (batch, codes) = ended(&app, &id, "cancelled", &input).await;
    assert_eq!(codes, ["batch_cancelled"; 3]);
    let results = app.results(&batch).await;
    let names: Vec<&str> = results.errors.iter().map(|line| text(&line["custom_id"])).collect();
    assert_eq!(names, ["held-0", "held-1", "held-2"]);
}

#[tokio::test]
async fn a_batch_without_its_input_expires_at_the_end_of_its_window() {
    let app = TestApp::with(&["--completion-windows", "24h,2s"]).await;
    hold_the_held(&app);
    let input = held(2);
    let stored = upload(&app, &input).await;
    let id = app.create_batch_within(&stored.id, "2s").await;
    eventually("all rows to be called", async || (app.upstream.running() == 2).then_some(())).await;
    std::fs::remove_file(&stored.content).expect("it is there");

    good_ones_end(&app).await;
    let (batch, codes) = ended(&app, &id, "expired", &input).await;
    assert_eq!(codes, ["input_unavailable"; 2]);
    assert_eq!(batch["request_counts"], json!({ "total": 2, "completed": 0, "failed": 0 }));
}

#[tokio::test]
async fn a_running_batch_whose_rows_are_lost_is_given_up_and_completed() {
    for (lost, code, named) in [("content", "input_unavailable", false), ("index", "input_unavailable", true)] {
        let app = TestApp::with(&["--role", "api"]).await;
        let input = rows(4);
        let stored = upload(&app, &input).await;
        let id = app.create_batch(&stored.id).await;
        std::fs::remove_file(if lost == "content" { &stored.content } else { &stored.index }).expect("it is there");

        let app = app.stop().await.start(&[]).await;
        good_ones_end(&app).await;
        let (batch, codes) = ended(&app, &id, "completed", &input).await;

        assert_eq!(codes, [code; 4], "{lost}");
        assert_eq!(batch["request_counts"], json!({ "total": 4, "completed": 0, "failed": 4 }));
        assert!(batch["completed_at"].as_i64() < batch["expires_at"].as_i64(), "{batch}");
        let results = app.results(&batch).await;
        assert_eq!(results.errors.iter().filter(|line| line["custom_id"] != "").count(), if named { 4 } else { 0 });
        let message = text(&results.errors[0]["error"]["message"]);
        assert!(message.contains("input file of the batch could not be read any more"), "{message}");
    }
}

async fn damage(app: &TestApp, statement: &'static str, id: Uuid) {
    let options = SqliteConnectOptions::new().filename(app.database());
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the database is there");
    let changed = sqlx::query(statement).bind(id).execute(&mut connection).await.expect("it is a statement");
    assert_eq!(changed.rows_affected(), 1);
}

async fn execute(app: &TestApp, statement: String) {
    let options = SqliteConnectOptions::new().filename(app.database());
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the database is there");
    sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await.expect("it is a statement");
}

fn batch_uuid(id: &str) -> Uuid {
    BatchId::parse(id).expect("the id of a batch").0
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_left_out_of_lists_and_of_work() {
    const DAMAGED: &str = "UPDATE batches SET endpoint = 'nowhere' WHERE id = $1";
    let app = TestApp::with(&["--role", "api"]).await;
    let (first, waiting, called_off, last) =
        (app.submit(rows(1)).await, app.submit(rows(1)).await, app.submit(rows(1)).await, app.submit(rows(1)).await);
    app.cancel(&called_off).await.ok();
    for id in [&waiting, &called_off] {
        damage(&app, DAMAGED, batch_uuid(id)).await;
    }

    let app = app.stop().await.start(&[]).await;
    good_ones_end(&app).await;
    for id in [&first, &last] {
        app.wait_for(id, "completed").await;
    }
    let page = app.get("/v1/batches?limit=100").await.ok();
    let oldest = app.get(&format!("/v1/batches?limit=1&after={last}")).await.ok();
    let broken = app.get(&format!("/v1/batches/{waiting}")).await;

    let listed = page["data"].as_array().expect("a list").len();
    assert_eq!((listed, &page["has_more"]), (2 + GOOD, &json!(false)));
    assert_eq!((&oldest["data"][0]["id"], &oldest["has_more"]), (&json!(first), &json!(false)));
    assert_eq!((broken.status, &broken.json()["error"]["type"]), (500, &json!("server_error")));
}

#[tokio::test]
async fn a_batch_whose_input_or_index_is_cut_short_ends_with_a_line_for_each_row() {
    for cut in ["content", "index"] {
        let app = TestApp::with(&["--role", "api"]).await;
        let input = rows(40);
        let stored = upload(&app, &input).await;
        let id = app.create_batch(&stored.id).await;
        let path = if cut == "content" { &stored.content } else { &stored.index };
        let whole = std::fs::read(path).expect("it is there");
        std::fs::write(path, &whole[..whole.len() / 2]).expect("it can be written");

        let app = app.stop().await.start(&[]).await;
        good_ones_end(&app).await;
        let (batch, codes) = ended(&app, &id, "completed", &input).await;

        assert!(codes.iter().all(|code| code == "input_unavailable"), "{cut} {codes:?}");
        assert_eq!(batch["request_counts"]["failed"], json!(codes.len()), "{cut}");
        assert_ne!(codes.len(), 0, "{cut}");
    }
}

#[tokio::test]
async fn a_batch_whose_results_the_database_refuses_costs_those_beside_it_no_call() {
    const BESIDE: usize = 50;
    let app = TestApp::with(&ALL_AT_ONCE).await;
    hold_the_held(&app);
    let first = app.submit(held(BESIDE)).await;
    let refused = app.submit(held(1)).await;
    let last = app.submit(held(BESIDE)).await;
    let rows = 2 * BESIDE + 1;
    eventually("all rows to be called", async || (app.upstream.running() == rows).then_some(())).await;
    let uuid = batch_uuid(&refused).simple();
    let refuse = format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON file_parts \
         WHEN NEW.file_id IN (SELECT output_file_id FROM batches WHERE id = x'{uuid}') \
         BEGIN SELECT RAISE(ABORT, 'a row that the schema does not take'); END"
    );
    execute(&app, refuse).await;

    app.upstream.release();
    for id in [&first, &last] {
        let batch = app.wait_for(id, "completed").await;
        assert!(app.verify(&held(BESIDE), &batch).await.holds());
    }
    let calls = app.upstream.calls();
    let of_rows_beside = calls.iter().filter(|call| !call.is_of("held-0")).count();
    assert_eq!(of_rows_beside, 2 * (BESIDE - 1), "only the first row of a batch may be the refused one");
    assert_eq!(app.batch(&refused).await["request_counts"]["completed"], 0);

    execute(&app, "DROP TRIGGER refuse".to_owned()).await;
    let batch = app.wait_for(&refused, "completed").await;
    assert!(app.verify(&held(1), &batch).await.holds());
}

#[tokio::test]
async fn a_batch_whose_report_cannot_be_read_fails_and_says_so() {
    let app = TestApp::with(&["--role", "api"]).await;
    let file = app.upload(rows(1)).await;
    let (id, called_off) = (app.create_batch(&file).await, app.create_batch(&file).await);
    app.cancel(&called_off).await.ok();
    let uuid = FileId::parse(&file).expect("the id of a file").0;
    damage(&app, "UPDATE files SET report = '{}' WHERE id = $1", uuid).await;

    let app = app.stop().await.start(&[]).await;
    good_ones_end(&app).await;
    let batch = app.wait_for(&id, "failed").await;

    let error = &batch["errors"]["data"][0];
    assert_eq!((&error["code"], &error["param"]), (&json!("input_unavailable"), &json!("file_id")));
    assert!(text(&error["message"]).contains("Please upload the file again"), "{error}");
    let cancelled = app.wait_for(&called_off, "cancelled").await;
    assert_eq!((&cancelled["request_counts"]["total"], &cancelled["error_file_id"]), (&json!(0), &Value::Null));
}

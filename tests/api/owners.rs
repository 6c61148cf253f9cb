//! A client sees what its owner has. Clients without keys act for the default owner: what a test gives to another owner
//! in the database is out of their sight. `tenants.rs` has the same of every route, with keys.

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

use crate::common::builders::{file, line};
use crate::common::client::{Answer, error, new_batch, send, text};
use crate::common::test_app::TestApp;

/// Gives everything that is there to another owner.
pub async fn give_away(app: &TestApp) {
    let options = SqliteConnectOptions::new().filename(app.database());
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the database is there");
    let statements = [
        "UPDATE files SET owner = 'other'",
        "UPDATE batches SET owner = 'other'",
        "UPDATE idempotency_keys SET owner = 'other'",
    ];
    for statement in statements {
        sqlx::query(statement).execute(&mut connection).await.expect("it is a statement");
    }
}

/// A row whose response is made here, with an id of its own.
fn row(body: &Value) -> String {
    file([line("row").url("/v1/responses").body(&body.to_string())])
}

fn batch_of(file_id: &str) -> Value {
    let mut batch = new_batch(file_id, "24h");
    batch["endpoint"] = json!("/v1/responses");
    batch
}

async fn create(app: &TestApp, file_id: &str, key: &str) -> Answer {
    send(app.request(Method::POST, "/v1/batches").header("Idempotency-Key", key).json(&batch_of(file_id))).await
}

/// A batch that was completed, as it is on the wire, and the id of its response.
async fn completed(app: &TestApp) -> (Value, String) {
    let file_id = app.upload(row(&json!({ "model": "m", "input": "Hi" }))).await;
    let id = create(app, &file_id, "once").await.ok()["id"].clone();
    let batch = app.wait_for(text(&id), "completed").await;
    let response = text(&app.results(&batch).await.output[0]["response"]["body"]["id"]).to_owned();
    (batch, response)
}

#[tokio::test]
async fn what_another_owner_has_is_not_found() {
    let app = TestApp::with(&["--upstream-responses", "chat"]).await;
    let (batch, response) = completed(&app).await;
    let (id, input) = (text(&batch["id"]), text(&batch["input_file_id"]));
    let no_file = |id: &str| error(&format!("No such File object: {id}"), Some("id"), None);
    let no_batch = error(&format!("No batch found with id '{id}'."), None, None);
    let mut cases = vec![
        (Method::GET, format!("/v1/batches/{id}"), no_batch.clone()),
        (Method::GET, format!("/v1/batches/{id}/requests/row"), no_batch.clone()),
        (Method::GET, format!("/v1/batches/{id}/requests/row/steps"), no_batch.clone()),
        (Method::POST, format!("/v1/batches/{id}/cancel"), no_batch),
        (
            Method::GET,
            format!("/v1/responses/{response}"),
            error(&format!("Response with id '{response}' not found."), None, None),
        ),
    ];
    for file in [input, text(&batch["output_file_id"])] {
        cases.push((Method::GET, format!("/v1/files/{file}"), no_file(file)));
        cases.push((Method::GET, format!("/v1/files/{file}/content"), no_file(file)));
        cases.push((Method::DELETE, format!("/v1/files/{file}"), no_file(file)));
    }
    for (_, path, _) in cases.iter().filter(|(method, ..)| method == Method::GET) {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }

    give_away(&app).await;

    for (method, path, expected) in cases {
        let answer = send(app.request(method.clone(), &path)).await;
        assert_eq!((answer.status, answer.json()), (404, expected), "{method} {path}");
    }
    for path in ["/v1/files", "/v1/batches"] {
        assert_eq!(app.get(path).await.ok()["data"], json!([]));
    }
}

#[tokio::test]
async fn a_batch_cannot_run_or_go_on_from_what_another_owner_has() {
    let app = TestApp::with(&["--upstream-responses", "chat"]).await;
    let (batch, response) = completed(&app).await;
    let input = text(&batch["input_file_id"]);
    give_away(&app).await;

    let refused = create(&app, input, "once").await.ok();
    let going_on = app.upload(row(&json!({ "model": "m", "input": "Go on", "previous_response_id": response }))).await;
    let failed = create(&app, &going_on, "again").await.ok();

    assert_ne!(refused["id"], batch["id"], "the key of another owner is free");
    let refused = app.wait_for(text(&refused["id"]), "failed").await;
    assert_eq!(
        refused["errors"]["data"][0]["message"],
        format!("Cannot find file {input}, or you do not have access to it.")
    );
    let failed = app.wait_for(text(&failed["id"]), "completed").await;
    let message = text(&app.results(&failed).await.errors[0]["error"]["message"]).to_owned();
    assert!(message.contains(&format!("Previous response with id '{response}' not found.")), "{message}");
}

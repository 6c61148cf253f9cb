//! Two projects on one service: whatever names an id of the other is answered as if there were no such id.
//!
//! The calls are made from the OpenAPI document, so that a route that joins is called here too. One whose path or body
//! names an id of a new kind fails until it is said here which ids these are.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::builders::{file, line};
use crate::common::client::{Answer, Client, send, text};
use crate::common::eventually::eventually;
use crate::common::fake_upstream::{Call, Reply};
use crate::common::test_app::TestApp;

/// What a project has, and what nobody has.
struct Ids {
    files: Vec<String>,
    batch: String,
    response: String,
    message_batch: String,
    upload: String,
}

const NO_FILE: &str = "file-0000000000000000000001";
const NO_BATCH: &str = "batch_00000000000000000000000000000001";
const NO_MESSAGE_BATCH: &str = "msgbatch_00000000000000000000000000000001";
const NO_UPLOAD: &str = "upload_00000000000000000000000000000001";
const NO_RESPONSE: &str = "resp_0000000000000000000000000000000100000000";

impl Ids {
    /// A batch of the project has ended, and its rows have responses.
    async fn of(client: &Client) -> Self {
        let row = json!({ "model": "m", "input": "Hi" });
        let input = client.upload(file([line("row").url("/v1/responses").body(&row.to_string())])).await;
        let batch = client.create_batch_for(&input, "/v1/responses").await;
        let ended = client.wait_for(&batch, "completed").await;
        let response = text(&client.results(&ended).await.output[0]["response"]["body"]["id"]).to_owned();
        Self {
            files: vec![input, text(&ended["output_file_id"]).to_owned()],
            batch,
            response,
            message_batch: String::new(),
            upload: String::new(),
        }
    }

    /// The same with a message batch that has ended, and an upload in parts.
    async fn and_more(self, client: &Client) -> Self {
        let params = json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": "user", "content": "Hi" }] });
        let requests = json!({ "requests": [{ "custom_id": "row", "params": params }] });
        let created = client.post("/v1/messages/batches", &requests).await.ok();
        let message_batch = text(&created["id"]).to_owned();
        eventually("the message batch to end", async || {
            let batch = client.get(&format!("/v1/messages/batches/{message_batch}")).await.ok();
            (batch["processing_status"] == "ended").then_some(())
        })
        .await;
        let upload = json!({ "filename": "a", "purpose": "user_data", "bytes": 1, "mime_type": "text/plain" });
        let upload = text(&client.post("/v1/uploads", &upload).await.ok()["id"]).to_owned();
        Self { message_batch, upload, ..self }
    }

    /// The ids of a parameter, and one that nobody has. None of a parameter that names nothing that a project has.
    fn named(&self, parameter: &str) -> Option<(Vec<&str>, &'static str)> {
        match parameter {
            "file_id" | "input_file_id" => Some((self.files.iter().map(String::as_str).collect(), NO_FILE)),
            "batch_id" | "retry_of" => Some((vec![&self.batch], NO_BATCH)),
            "response_id" | "previous_response_id" => Some((vec![&self.response], NO_RESPONSE)),
            "message_batch_id" => Some((vec![&self.message_batch], NO_MESSAGE_BATCH)),
            "upload_id" => Some((vec![&self.upload], NO_UPLOAD)),
            // A name within a batch, and one of an upstream.
            "custom_id" | "model" => None,
            other => panic!("say what another project's '{other}' is"),
        }
    }
}

/// Every operation of the document: its method, its path, and its description.
fn operations() -> Vec<(Method, String, Value)> {
    let document = serde_json::to_value(batchwright::api::openapi::document()).expect("JSON");
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method = method.to_uppercase().parse().expect("a method");
            operations.push((method, path.clone(), operation.clone()));
        }
    }
    operations
}

/// The parameters in a path.
fn parameters(path: &str) -> Vec<&str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
}

/// A path with one id in the place of the parameter that names what a project has.
fn filled(path: &str, parameter: &str, id: &str) -> String {
    path.replace(&format!("{{{parameter}}}"), id).replace("{custom_id}", "row")
}

/// Checks that a path with each id that the first project has is for the second as one that nobody has.
async fn assert_is_not_there(
    [own, other]: [&Client; 2],
    method: &Method,
    (path, parameter): (&str, &str),
    (ids, unknown): (Vec<&str>, &str),
) {
    let nowhere = said(&ask(other, method, &filled(path, parameter, unknown)).await, unknown);
    // Of a body that is missing it is said first.
    let is_without_body = path.ends_with("/parts") || path.ends_with("/complete");
    assert!(nowhere.0 == 404 || is_without_body && nowhere.0 == 400, "{method} {path}: {nowhere:?}");
    for id in ids {
        let path = filled(path, parameter, id);
        assert_eq!(said(&ask(other, method, &path).await, id), nowhere, "{method} {path}");
        if method == Method::GET {
            assert_eq!(ask(own, method, &path).await.status, 200, "its own project has it: {path}");
        }
    }
}

/// What an answer says, but for the id that was asked for.
fn said(answer: &Answer, id: &str) -> (u16, String, String) {
    let request = answer.header("x-request-id");
    let text = String::from_utf8_lossy(&answer.bytes).replace(id, "ID").replace(request, "REQUEST");
    (answer.status, answer.header("content-type").to_owned(), text)
}

async fn ask(client: &Client, method: &Method, path: &str) -> Answer {
    send(client.request(method.clone(), path)).await
}

#[tokio::test]
async fn a_path_with_an_id_of_another_project_is_answered_as_one_with_an_unknown_id() {
    let app = TestApp::with(&["--upstream-responses", "chat"]).await;
    let message = r#"{"type":"message","content":[],"usage":{"input_tokens":1,"output_tokens":1}}"#;
    let of_messages = |call: &Call| call.path.ends_with("/messages");
    app.upstream.reply(move |call| if of_messages(call) { Reply::new(200, message) } else { Reply::ok() });
    let [a, b] = [app.client_of("team-a", "write").await, app.client_of("team-b", "admin").await];
    let ids = Ids::of(&a).await.and_more(&a).await;
    let before = a.batch(&ids.batch).await;
    let mut calls = 0;

    for (method, path, _) in operations() {
        let named = parameters(&path).into_iter().filter_map(|parameter| Some((parameter, ids.named(parameter)?)));
        for (parameter, named) in named {
            calls += named.0.len();
            assert_is_not_there([&a, &b], &method, (&path, parameter), named).await;
        }
    }

    println!("{calls} calls with ids of another project");
    assert!(calls >= 16, "{calls}");
    assert_eq!(a.batch(&ids.batch).await, before, "nothing has changed");
}

#[tokio::test]
async fn a_body_with_an_id_of_another_project_is_answered_as_one_with_an_unknown_id() {
    let app = TestApp::with(&["--upstream-responses", "chat"]).await;
    let [a, b] = [app.client_of("team-a", "write").await, app.client_of("team-b", "write").await];
    let ids = Ids::of(&a).await;

    for name in ids_in_bodies() {
        let (theirs, unknown) = ids.named(&name).expect("what a project has");
        let nowhere = ended(&b, &body_with(&name, unknown), unknown).await;
        assert!(!nowhere.contains("completed"), "{nowhere}");
        for id in theirs {
            assert_eq!(ended(&b, &body_with(&name, id), id).await, nowhere, "{name}");
        }
    }
    let (theirs, unknown) = (&ids.response, NO_RESPONSE);
    assert_eq!(row_after(&b, theirs).await, row_after(&b, unknown).await);
    assert!(row_after(&a, theirs).await.contains("completed"), "its own project goes on from it");
}

/// The members of JSON bodies that name something.
fn ids_in_bodies() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, _, operation) in operations() {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        names.extend(members(schema).into_iter().filter(|name| name.ends_with("_id") || name.ends_with("_of")));
    }
    assert!(names.contains("input_file_id"), "{names:?}");
    names
}

/// The members of a schema, and of those that it is made of.
fn members(schema: &Value) -> Vec<String> {
    let own = schema["properties"].as_object().into_iter().flat_map(|members| members.keys().cloned());
    let parts = ["oneOf", "allOf"].into_iter().filter_map(|kind| schema[kind].as_array()).flatten();
    own.chain(parts.flat_map(members)).collect()
}

fn body_with(name: &str, id: &str) -> Value {
    let mut body = match name {
        "retry_of" => json!({}),
        _ => json!({ "endpoint": "/v1/responses", "completion_window": "24h" }),
    };
    body[name] = json!(id);
    body
}

/// How a batch ends that is created with this body, without what differs of every batch; or why it is refused.
async fn ended(client: &Client, body: &Value, id: &str) -> String {
    let created = client.post("/v1/batches", body).await;
    if created.status != 200 {
        return format!("{:?}", said(&created, id));
    }
    let ended = client.wait_for(text(&created.ok()["id"]), "failed").await;
    format!("{} {}", ended["status"], ended["errors"]).replace(id, "ID")
}

/// How a row ends that goes on from a response.
async fn row_after(client: &Client, response: &str) -> String {
    let row = json!({ "model": "m", "input": "Go on", "previous_response_id": response });
    let input = client.upload(file([line("row").url("/v1/responses").body(&row.to_string())])).await;
    let batch = client.create_batch_for(&input, "/v1/responses").await;
    let batch = client.wait_for(&batch, "completed").await;
    let results = client.results(&batch).await;
    let of_row = |line: &Value| format!("{} {}", line["error"], line["response"]["body"]["status"]);
    results.output.iter().chain(&results.errors).map(of_row).collect::<String>().replace(response, "ID")
}

#[tokio::test]
async fn lists_show_what_their_own_project_has_and_nothing_else() {
    let app = TestApp::with(&["--upstream-responses", "chat"]).await;
    let [a, b] = [app.client_of("team-a", "write").await, app.client_of("team-b", "admin").await];
    let (of_a, of_b) = (Ids::of(&a).await, Ids::of(&b).await);

    for (path, theirs, own, unknown) in [
        ("/v1/files", &of_a.files, &of_b.files, NO_FILE),
        ("/v1/batches", &vec![of_a.batch.clone()], &vec![of_b.batch.clone()], NO_BATCH),
    ] {
        let mut listed = ids_of(&b.get(path).await.ok());
        listed.sort_unstable();
        let mut own = own.clone();
        own.sort_unstable();
        assert_eq!(listed, own, "{path}");
        for (limit, id) in [1, 100].into_iter().flat_map(|limit| theirs.iter().map(move |id| (limit, id))) {
            let after = async |id: &str| b.get(&format!("{path}?limit={limit}&after={id}")).await;
            assert_eq!(said(&after(id).await, id), said(&after(unknown).await, unknown), "{path} after {id}");
        }
    }
    let all = [b.get("/v1/files").await.text(), b.get("/v1/batches").await.text()].concat();
    for id in of_a.files.iter().chain([&of_a.batch, &of_a.response]) {
        assert!(!all.contains(id.as_str()), "{id}");
    }
}

fn ids_of(list: &Value) -> Vec<String> {
    list["data"].as_array().expect("a list").iter().map(|item| text(&item["id"]).to_owned()).collect()
}

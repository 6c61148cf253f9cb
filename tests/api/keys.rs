//! Keys: which calls are answered, and for whom.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Answer, Client, error, new_batch, send};
use crate::common::eventually::{eventually, until, within};
use crate::common::fake_upstream::FakeUpstream;
use crate::common::keys::Key;
use crate::common::process::{Process, batchwright, refusal};
use crate::common::raw_http::{open, upload_head};
use crate::common::test_app::TestApp;
use crate::sharing::rows_of;
use crate::upstreams::{app_of, table};
use tokio::io::AsyncReadExt as _;

/// Within this time, a key that was revoked is refused.
const REVOKED_WITHIN: Duration = Duration::from_secs(2);

async fn with_header(client: &Client, name: &str, value: &str) -> Answer {
    send(client.request(Method::GET, "/v1/batches").header(name, value)).await
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn from_the_first_key_on_every_call_needs_one() {
    let app = TestApp::start().await;
    assert_eq!(with_header(&app, "authorization", "Bearer unused").await.status, 200, "SDKs always send a key");

    let client = app.client_of("team-a", "read").await;

    let refused = app.get("/v1/batches").await;
    let expected =
        error("Missing bearer authentication in header. Send your API key as 'Authorization: Bearer KEY'.", None, None);
    assert_eq!((refused.status, refused.json()), (401, expected));
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"batchwright\"");
    assert_eq!(refused.header("content-type"), "application/json");
    assert!(refused.header("x-request-id").starts_with("req_"));
    for path in ["/v1/files", "/v1/models", "/v1/none", "/none"] {
        assert_eq!(app.get(path).await.status, 401, "{path}");
    }
    assert_eq!(client.get("/v1/batches").await.status, 200);
    assert_eq!(client.get("/v1/none").await.status, 404);
}

#[tokio::test]
async fn a_key_has_the_spellings_of_several_clients() {
    let app = TestApp::start().await;
    let key = Key::create(app.data(), "team-a", "read").await.secret;
    app.calls_need_a_key().await;
    let cases = [
        ("authorization", format!("Bearer {key}"), 200),
        ("authorization", format!("bearer {key}"), 200),
        ("api-key", key.clone(), 200),
        ("x-api-key", key.clone(), 200),
        ("authorization", key.clone(), 200),
        ("authorization", format!("Basic {key}"), 401),
        ("authorization", format!("Bearer {key}x"), 401),
        ("authorization", format!("Bearer {}", key.to_uppercase()), 401),
        ("cookie", format!("key={key}"), 401),
    ];
    for (name, value, status) in cases {
        assert_eq!(with_header(&app, name, &value).await.status, status, "{name}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_hardly_shown() {
    let app = TestApp::start().await;
    let key = Key::create(app.data(), "team-a", "read").await.secret;
    app.calls_need_a_key().await;

    let wrong = format!("bw-{}wxyz", &key[3..key.len() - 4]);
    let refused = with_header(&app, "api-key", &wrong).await;

    assert_eq!(refused.status, 401);
    let object = &refused.json()["error"];
    assert_eq!((&object["type"], &object["code"]), (&json!("invalid_request_error"), &json!("invalid_api_key")));
    assert!(message(&refused).starts_with("Incorrect API key provided: bw-***wxyz. "), "{object}");
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"batchwright\"");
}

#[tokio::test]
async fn scopes_say_what_a_key_may_do() {
    let app = TestApp::start().await;
    let [reader, writer, admin] = [
        app.client_of("team-a", "read").await,
        app.client_of("team-a", "write").await,
        app.client_of("team-a", "admin").await,
    ];
    let none = "/v1/files/file-0000000000000000000000";
    let cases = [
        (Method::GET, "/v1/files", [200, 200, 200]),
        (Method::POST, "/v1/batches", [403, 400, 400]),
        (Method::DELETE, none, [403, 404, 404]),
        (Method::POST, "/v1/batches/batch_1/cancel", [403, 404, 404]),
        (Method::GET, "/metrics", [403, 403, 200]),
    ];
    for (method, path, statuses) in cases {
        for (client, status) in [&reader, &writer, &admin].into_iter().zip(statuses) {
            let answer = send(client.request(method.clone(), path)).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        }
    }
    let refused = send(reader.request(Method::POST, "/v1/batches")).await;
    let expected =
        "You have insufficient permissions for this operation. Your API key does not have the scope 'write'.";
    assert_eq!(refused.json(), error(expected, None, None));
    assert_eq!(app.get("/metrics").await.status, 401);
}

#[tokio::test]
async fn a_key_that_is_revoked_is_refused_soon_and_opens_nothing() {
    let app = TestApp::start().await;
    let key = Key::create(app.data(), "team-a", "admin").await;
    let client = key.client(&app.base_url);
    app.calls_need_a_key().await;
    // It is in the memory of the service when it is revoked.
    assert_eq!(client.get("/v1/batches").await.status, 200);

    key.revoke(app.data()).await;

    let refused = async || (client.get("/v1/batches").await.status == 401).then_some(());
    within(REVOKED_WITHIN, "the key to be refused", refused).await;
    assert_eq!(app.get("/v1/batches").await.status, 401, "a call without a key is not answered again");
    let again = Key::create(app.data(), "team-a", "admin").await.client(&app.base_url);
    assert_eq!(again.get("/v1/batches").await.status, 200, "a new key is good at once");
}

#[tokio::test]
async fn an_upload_without_a_key_is_refused_before_its_body_is_read() {
    let app = TestApp::start().await;
    Key::create(app.data(), "team-a", "admin").await;
    app.calls_need_a_key().await;
    let framing = "Content-Length: 100000000\r\nExpect: 100-continue";

    let mut connection = open(app.address, upload_head("multipart/form-data; boundary=b", framing)).await;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("the connection ends");

    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(app.blobs().is_empty());
}

#[tokio::test]
async fn only_an_operator_is_told_more_than_that_it_is_ready() {
    let upstream = FakeUpstream::start();
    let app = app_of(&[table("a", &upstream, "models = ['m']")], &[]).await;
    app.submit(rows_of("secret-model", 1)).await;
    let warned = async || app.get("/readyz").await.text().contains("no upstream has `secret-model`").then_some(());
    eventually("a warning", warned).await;

    let [reader, admin] = [app.client_of("team-a", "write").await, app.client_of("team-a", "admin").await];

    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    for client in [&*app, &reader] {
        assert_eq!(client.get("/readyz").await.json(), json!({ "status": "ready" }));
    }
    assert!(admin.get("/readyz").await.text().contains("secret-model"));
}

#[tokio::test]
async fn calls_without_a_key_act_for_the_default_project_where_they_are_allowed() {
    let app = TestApp::with(&["--allow-anonymous"]).await;
    let key = Key::create(app.data(), "team-a", "read").await;
    let team = key.client(&app.base_url);
    let file = app.upload(rows(1)).await;
    let wrong = async || (with_header(&app, "api-key", "bw-wrong").await.status == 401).then_some(());
    eventually("the key to be in force", wrong).await;

    assert_eq!(app.get(&format!("/v1/files/{file}")).await.status, 200);
    assert_eq!(team.get(&format!("/v1/files/{file}")).await.status, 404, "it acts for another project");
    assert_eq!(app.get("/metrics").await.status, 403);
    let of_default = Key::create(app.data(), "default", "read").await.client(&app.base_url);
    assert_eq!(of_default.get(&format!("/v1/files/{file}")).await.status, 200);
}

#[tokio::test]
async fn beyond_loopback_a_service_without_keys_does_not_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("a printable path");
    let flags = |more: &[&'static str]| {
        let always = ["serve", "--listen", "0.0.0.0:0", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", data];
        batchwright(&[&always[..], more].concat())
    };

    let said = refusal(flags(&[]), 1).await;
    assert!(said.contains("keys create") && said.contains("--allow-anonymous"), "{said}");

    let allowed = Process::start(flags(&["--allow-anonymous"])).await;
    assert_eq!(local(&allowed).get("/v1/batches").await.status, 200);
    assert!(allowed.log().contains("WARN") && allowed.log().contains("without a key"), "{}", allowed.log());
    drop(allowed);

    let key = Key::create(directory.path(), "team-a", "read").await;
    let keyed = Process::start(flags(&[])).await;
    assert_eq!(local(&keyed).get("/v1/batches").await.status, 401);
    assert_eq!(key.client(&local(&keyed).base_url).get("/v1/batches").await.status, 200);
    key.revoke(directory.path()).await;
    let refused = async || (key.client(&local(&keyed).base_url).get("/v1/batches").await.status == 401).then_some(());
    within(REVOKED_WITHIN, "the key to be refused", refused).await;
    assert_eq!(local(&keyed).get("/v1/batches").await.status, 401);
}

/// A client of a process that listens on every address.
fn local(process: &Process) -> Client {
    Client::new(format!("http://127.0.0.1:{}", process.address().port()))
}

#[tokio::test]
async fn the_audit_log_tells_who_has_changed_what() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("a printable path");
    let flags = ["--role", "api", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", data];
    let server = Process::serve(&flags).await;
    let key = Key::create(directory.path(), "team-a", "write").await;
    let client = key.client(&server.base_url);
    let file = client.upload(rows(1)).await;
    let batch = client.post("/v1/batches", &new_batch(&file, "24h")).await;
    let request = batch.header("x-request-id").to_owned();
    let batch = batch.ok()["id"].as_str().expect("an id").to_owned();
    client.cancel(&batch).await.ok();
    client.get(&format!("/v1/batches/{batch}")).await.ok();
    assert_eq!(server.client().delete(&format!("/v1/files/{file}")).await.status, 401);

    let audit = || server.log().lines().filter(|line| line.contains(" audit: ")).map(str::to_owned).collect::<Vec<_>>();
    until("four lines of the audit log", || audit().len() >= 4).await;

    let lines = audit();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let who = format!("key_id=\"{}\" project=\"team-a\" ", key.id);
    let expected = [
        format!("{who}method=\"POST\" route=\"/v1/files\" object_id=\"{file}\" "),
        format!("{who}method=\"POST\" route=\"/v1/batches\" object_id=\"{batch}\" "),
        format!("{who}method=\"POST\" route=\"/v1/batches/{{batch_id}}/cancel\" object_id=\"{batch}\" "),
        format!("method=\"DELETE\" route=\"/v1/files/{{file_id}}\" object_id=\"{file}\" "),
    ];
    for ((line, expected), status) in lines.iter().zip(&expected).zip([200, 200, 200, 401]) {
        assert!(line.contains(expected) && line.contains(&format!(" status={status} ")), "{line}");
        assert!(line.contains(" peer=\"127.0.0.1:") && line.contains(" request_id=\"req_"), "{line}");
    }
    assert!(lines[1].contains(&request), "{request}: {}", lines[1]);
    assert!(!server.log().contains(&key.secret));
}

#[tokio::test]
async fn a_key_says_when_it_was_used_last() {
    let app = TestApp::start().await;
    let key = Key::create(app.data(), "team-a", "read").await;
    assert_eq!(last_used(&app).await, Value::Null);

    key.client(&app.base_url).get("/v1/batches").await;
    // Before there was a key in force, the call needed none.
    app.calls_need_a_key().await;
    key.client(&app.base_url).get("/v1/batches").await.ok();

    let is_noted = async || last_used(&app).await.is_i64().then_some(());
    eventually("the use to be noted", is_noted).await;
}

async fn last_used(app: &TestApp) -> Value {
    let data = app.data().to_str().expect("a printable path");
    let list = refusal(batchwright(&["keys", "list", "--output", "json", "--data-dir", data]), 0).await;
    let list: Value = serde_json::from_str(&list).expect("a list");
    list[0]["last_used_at"].clone()
}

#[tokio::test]
async fn hundreds_of_calls_do_not_each_ask_the_database_for_their_key() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("a printable path");
    let flags =
        ["--role", "api", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", data, "--log", "info,sqlx=debug"];
    let key = Key::create(directory.path(), "team-a", "read").await;
    let server = Process::serve(&flags).await;
    let client = key.client(&server.base_url);
    let started = Instant::now();

    for _ in 0..300 {
        client.get("/v1/batches").await.ok();
    }

    let seconds = started.elapsed().as_secs();
    let asked = |what: &str| server.log().lines().filter(|line| line.contains(what)).count() as u64;
    until("the lists to be logged", || asked("FROM batches") >= 300).await;
    let asked = asked("SELECT api_keys.hash");
    println!("300 calls and {asked} reads of the key in {seconds} s");
    assert!((1..=seconds + 3).contains(&asked), "{asked} in {seconds} s");
}

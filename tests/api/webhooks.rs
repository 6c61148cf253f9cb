//! Webhooks: receivers are told how batches end, in the settings' name or in that of one batch.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Client, error, new_batch, text};
use crate::common::eventually::until;
use crate::common::fake_upstream::{Call, FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};

const SECRET: &str = "whsec_c2VjcmV0IG9mIGEgdGVzdA==";
/// A batch of this file fails its validation.
const NO_FILE: &str = "file-0000000000000000000000";
const PRIVATE: &str = "--webhook-allow-private";

fn url(receiver: &FakeUpstream, path: &str) -> String {
    format!("http://{}{path}", receiver.address)
}

/// The parameters of a batch whose end is told to this URL.
fn told(file_id: &str, url: &str) -> Value {
    let mut batch = new_batch(file_id, "24h");
    batch["webhook"] = json!({ "url": url, "secret": SECRET });
    batch
}

async fn submit(app: &TestApp, input: impl Into<Vec<u8>>, url: &str) -> String {
    let file_id = app.upload(input).await;
    let batch = app.post("/v1/batches", &told(&file_id, url)).await.ok();
    assert_eq!(batch.get("webhook"), None, "the secret is not shown again");
    text(&batch["id"]).to_owned()
}

/// What a receiver was told: the type of each event, and the batch.
fn events(receiver: &FakeUpstream) -> Vec<(String, String)> {
    let event = |call: &Call| {
        let event: Value = serde_json::from_slice(&call.body).expect("an event is JSON");
        (text(&event["type"]).to_owned(), text(&event["data"]["id"]).to_owned())
    };
    let mut events: Vec<_> = receiver.calls().iter().map(event).collect();
    events.sort();
    events
}

#[tokio::test]
async fn every_way_in_which_a_batch_ends_is_told() {
    let receiver = FakeUpstream::start();
    let app = TestApp::with(&[PRIVATE, "--completion-windows", "24h,1s"]).await;
    app.upstream.reply(|call| if call.text().contains("row-1") { Reply::ok().held() } else { Reply::ok() });

    let completed = submit(&app, rows(1), &url(&receiver, "/hook")).await;
    let refused = app.post("/v1/batches", &told(NO_FILE, &url(&receiver, "/hook"))).await.ok();
    let cancelled = submit(&app, rows(2), &url(&receiver, "/hook")).await;
    let mut expiring = told(&app.upload(rows(2)).await, &url(&receiver, "/hook"));
    expiring["completion_window"] = "1s".into();
    let expired = text(&app.post("/v1/batches", &expiring).await.ok()["id"]).to_owned();
    app.wait_for_completed(&cancelled, 1).await;
    app.cancel(&cancelled).await.ok();

    until("all to be told", || receiver.calls().len() == 4).await;
    let expected = [
        ("batch.cancelled".to_owned(), cancelled),
        ("batch.completed".to_owned(), completed),
        ("batch.expired".to_owned(), expired),
        ("batch.failed".to_owned(), text(&refused["id"]).to_owned()),
    ];
    assert_eq!(events(&receiver), expected);
    for call in receiver.calls() {
        assert_eq!((call.path.as_str(), call.header("content-type")), ("/hook", "application/json"));
        assert!(call.header("webhook-id").starts_with("wh_") && call.header("webhook-signature").starts_with("v1,"));
    }
}

#[tokio::test]
async fn receivers_of_the_settings_are_told_what_they_ask_for() {
    let [all, failed, other] = [(); 3].map(|()| FakeUpstream::start());
    let upstream = FakeUpstream::start();
    let table = |name: &str, receiver: &FakeUpstream, rest: &str| {
        format!("[[webhooks]]\nname = '{name}'\nurl = '{}'\nsecret = 'hunter2'\n{rest}\n", url(receiver, "/"))
    };
    let settings = format!(
        "[[upstreams]]\nname = 'one'\nurl = 'http://{}/v1'\nmodels = '*'\n{}{}{}",
        upstream.address,
        table("all", &all, ""),
        table("failed", &failed, "events = ['batch.failed']"),
        table("other", &other, "project = 'somebody-else'"),
    );
    let app = Stopped::new(upstream).start_with_upstreams(&settings, &[PRIVATE]).await;

    let good = app.submit(rows(1)).await;
    let bad = app.create_batch(NO_FILE).await;

    until("both to be told", || all.calls().len() == 2 && failed.calls().len() == 1).await;
    let told_bad = ("batch.failed".to_owned(), bad);
    assert_eq!(events(&all), [("batch.completed".to_owned(), good), told_bad.clone()]);
    assert_eq!(events(&failed), [told_bad]);
    assert_eq!(events(&other), []);
}

#[tokio::test]
async fn a_slow_receiver_delays_no_other() {
    let [slow, quick] = [(); 2].map(|()| FakeUpstream::start());
    slow.reply(|_| Reply::ok().held());
    let app = TestApp::with(&[PRIVATE]).await;
    for _ in 0..8 {
        submit(&app, rows(1), &url(&slow, "/")).await;
    }
    until("the slow one to be busy", || slow.running() == 4).await;

    submit(&app, rows(1), &url(&quick, "/")).await;

    until("the quick one to be told", || quick.calls().len() == 1).await;
    assert_eq!((slow.running(), slow.peak()), (4, 4));
    slow.release();
    until("the slow one to be told", || slow.calls().len() == 8).await;
}

#[tokio::test]
async fn a_failed_try_is_repeated_with_the_same_id() {
    let receiver = FakeUpstream::start();
    // A redirect could lead anywhere, so it counts as a failure.
    let elsewhere = FakeUpstream::start();
    let location = url(&elsewhere, "/");
    let first = std::sync::atomic::AtomicBool::new(true);
    receiver.reply(move |_| {
        let is_first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        if is_first { Reply::new(307, "").header("location", &location) } else { Reply::new(204, "") }
    });
    let app = TestApp::with(&[PRIVATE]).await;

    submit(&app, rows(1), &url(&receiver, "/")).await;

    until("the second try", || receiver.calls().len() == 2).await;
    let calls = receiver.calls();
    assert_eq!(calls[0].header("webhook-id"), calls[1].header("webhook-id"));
    assert_eq!(calls[0].body, calls[1].body);
    assert!(calls[1].arrived - calls[0].arrived >= Duration::from_secs(5));
    assert_eq!(elsewhere.calls().len(), 0);
}

#[tokio::test]
async fn the_url_and_the_secret_of_a_webhook_are_checked_when_the_batch_is_created() {
    type Case = (Value, &'static str, &'static str, Option<&'static str>);
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;
    let hook = |url: &str| json!({ "url": url, "secret": SECRET });
    let https = "Invalid 'webhook.url': its URL does not begin with https://.";
    let private = "Invalid 'webhook.url': its host has no public address.";
    let value = Some("invalid_value");
    let cases: [Case; 10] = [
        (hook("http://hooks.example.com/"), https, "webhook.url", value),
        (hook("https://127.0.0.1/"), private, "webhook.url", value),
        (hook("https://0x7f000001/"), private, "webhook.url", value),
        (hook("https://[::ffff:192.168.0.1]/"), private, "webhook.url", value),
        (hook("https://localhost:8080/"), private, "webhook.url", value),
        (
            hook("https://user:password@hooks.example.com/"),
            "Invalid 'webhook.url': its URL has a user name or a password in it.",
            "webhook.url",
            value,
        ),
        (
            hook("hooks"),
            "Invalid 'webhook.url': it cannot be read as a URL, relative URL without a base.",
            "webhook.url",
            value,
        ),
        (
            json!({ "url": "https://hooks.example.com/" }),
            "Missing required parameter: 'webhook.secret'.",
            "webhook.secret",
            Some("missing_required_parameter"),
        ),
        (
            json!({ "url": "https://hooks.example.com/", "secret": "whsec_?" }),
            "Invalid 'webhook.secret': after 'whsec_' a secret must be base64, with its '=' at the end.",
            "webhook.secret",
            value,
        ),
        (
            json!("https://hooks.example.com/"),
            "Invalid type for 'webhook': expected an object, but got a string instead.",
            "webhook",
            Some("invalid_type"),
        ),
    ];
    for (webhook, message, param, code) in cases {
        let mut batch = new_batch(&file_id, "24h");
        batch["webhook"] = webhook.clone();

        let answer = app.post("/v1/batches", &batch).await;

        assert_eq!((answer.status, answer.json()), (400, error(message, Some(param), code)), "{webhook}");
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_has_the_same_webhook() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;
    let create = async |url: &str| {
        let request = app.request(Method::POST, "/v1/batches").header("idempotency-key", "once");
        crate::common::client::send(request.json(&told(&file_id, url))).await
    };

    let first = create("https://hooks.example.com/a").await.ok();
    let again = create("https://hooks.example.com/a").await.ok();
    let other = create("https://hooks.example.com/b").await;

    assert_eq!(first["id"], again["id"]);
    assert_eq!((other.status, &other.json()["error"]["code"]), (409, &json!("idempotency_key_reused")));
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_other_project_with_the_same_host() {
    let receiver = FakeUpstream::start();
    receiver.reply(|call| if call.path == "/hangs" { Reply::ok().held() } else { Reply::ok() });
    let app = TestApp::with(&[PRIVATE]).await;
    let (one, other) = (app.client_of("one", "write").await, app.client_of("other", "write").await);
    let fail = async |client: &Client, path: &str| {
        client.post("/v1/batches", &told(NO_FILE, &url(&receiver, path))).await.ok()
    };
    let calls = |path: &str| receiver.calls().iter().filter(|call| call.path == path).count();

    for _ in 0..10 {
        fail(&one, "/hangs").await;
    }
    until("calls that hang", || calls("/hangs") == 4).await;
    fail(&other, "/answers").await;

    until("the other project to be told", || calls("/answers") == 1).await;
    assert_eq!(calls("/hangs"), 4, "before the first of these had ended");
}

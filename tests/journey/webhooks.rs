//! `batchwright webhooks`: what was given up is found, and sent again.

use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{new_batch, text};
use crate::common::eventually::until;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::{Process, batchwright, refusal, run};

#[tokio::test]
async fn an_event_that_was_given_up_is_listed_and_sent_again() {
    let (upstream, receiver) = (FakeUpstream::start(), FakeUpstream::start());
    receiver.reply(|_| Reply::new(410, ""));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data").display().to_string();
    let url = format!("http://{}/v1", upstream.address);
    let flags = ["--data-dir", &data, "--upstream", &url, "--webhook-allow-private"];
    let mut process = Process::serve(&flags).await;
    let client = process.client();
    let mut batch = new_batch(&client.upload(rows(1)).await, "24h");
    batch["webhook"] = json!({ "url": format!("http://{}/hidden", receiver.address), "secret": "hidden" });
    let id = text(&client.post("/v1/batches", &batch).await.ok()["id"]).to_owned();
    until("the event to be given up", || process.log().contains("webhook given up")).await;
    assert!(process.terminate().await.success());
    let command = |arguments: &[&str]| batchwright(&[&["webhooks"], arguments, &["--data-dir", &data]].concat());

    let listed = run(command(&["list", "--failed", "--output", "json"])).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("a list");
    let event = id.replace("batch_", "evt_");
    let why = "it answered with status 410: it takes no more events";
    assert_eq!((&listed[0]["event_id"], &listed[0]["batch_id"]), (&json!(event), &json!(id)));
    assert_eq!((&listed[0]["state"], &listed[0]["error"]), (&json!("failed"), &json!(why)));
    assert!(!listed.to_string().contains("hidden"), "{listed}");
    let nothing = run(command(&["replay", "evt_00000000000000000000000000000000"])).await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(refusal(command(&["replay", "wrong"]), 2).await.contains("'wrong' is no id of an event"));
    assert!(run(command(&["replay", &event])).await.status.success());

    receiver.reply(|_| Reply::new(200, ""));
    let _process = Process::serve(&flags).await;
    until("the second call", || receiver.calls().len() == 2).await;
    let calls = receiver.calls();
    assert_eq!(calls[0].header("webhook-id"), calls[1].header("webhook-id"));
    assert_eq!(calls[0].body, calls[1].body);
}

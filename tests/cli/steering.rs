//! `cancel`, `pause`, `resume` and `retry`.

use serde_json::{Value, json};

use crate::stand_in::{StandIn, World, batch_object};

async fn two_batches(has_extensions: bool) -> StandIn {
    let batches = vec![batch_object("batch_1", "in_progress", [2, 0, 0]), batch_object("batch_2", "completed", [2; 3])];
    StandIn::new(World { has_extensions, has_keys: has_extensions, batches, ..World::default() }).await
}

#[tokio::test]
async fn batches_are_cancelled_paused_and_resumed() {
    let server = two_batches(true).await;
    for (verb, member, value) in [
        ("pause", "metadata", json!({ "last": "pause" })),
        ("resume", "metadata", json!({ "last": "resume" })),
        ("cancel", "status", json!("cancelling")),
    ] {
        let said = server.cli(&[verb, "batch_1"]).exits(0).await;
        let shown: Value = serde_json::from_str(&said.out).expect("one object");
        assert_eq!((&shown["id"], &shown[member]), (&json!("batch_1"), &value), "{verb}");
        assert_eq!(server.count(&format!("POST /v1/batches/batch_1/{verb}")), 1);
        assert_eq!(said.err.contains("batchwright resume batch_1"), verb == "pause", "{verb}: {}", said.err);
    }
}

#[tokio::test]
async fn a_refusal_of_one_batch_does_not_keep_the_others() {
    let server = two_batches(true).await;

    let said = server.cli(&["cancel", "batch_9", "batch_1", "--output", "plain"]).exits(1).await;

    assert!(said.err.contains("error: batch_9: No such Batch."), "{said:?}");
    assert!(said.out.starts_with("batch_1\tcancelling"), "{said:?}");
}

#[tokio::test]
async fn a_server_without_extensions_is_named_as_such() {
    let server = two_batches(false).await;
    for verb in ["pause", "resume", "retry"] {
        let said = server.cli(&[verb, "batch_1"]).exits(1).await;
        let expected = format!("{}/v1 cannot {verb} batches: this is an extension", server.base_url);
        assert!(said.err.contains(&expected), "{said:?}");
    }
    // The batch is missing, not the extension.
    assert!(server.cli(&["pause", "batch_9"]).exits(1).await.err.contains("No such Batch"));
    server.cli(&["cancel", "batch_1"]).exits(0).await;
}

#[tokio::test]
async fn a_retry_names_codes_and_a_new_body_and_is_made_once() {
    let server = two_batches(true).await;
    let flags = ["--codes", "a,b", "--set", "model=larger", "--set", "max_tokens=7", "--set", "stop=[\"x\"]"];
    let command = [&["retry", "batch_2"], &flags[..]].concat();

    let said = server.cli(&command).exits(0).await;

    assert_eq!(said.out, "batch_3\n");
    let body = json!({ "model": "larger", "max_tokens": 7, "stop": ["x"] });
    let expected = json!({ "retry_of": "batch_2", "retry": { "codes": ["a", "b"], "body": body } });
    assert_eq!(server.world().created, expected);
    assert_eq!(server.cli(&command).exits(0).await.out, "batch_3\n");
    assert_eq!(server.cli(&[&command[..], &["--again"]].concat()).exits(0).await.out, "batch_4\n");
    let said = server.cli(&["retry", "batch_1", "--output", "json"]).exits(0).await;
    assert_eq!(serde_json::from_str::<Value>(&said.out).expect("one object")["id"], "batch_5");
    assert_eq!(server.world().created, json!({ "retry_of": "batch_1", "retry": {} }));
    server.cli(&["retry", "batch_1", "--set", "model"]).exits(2).await;
}

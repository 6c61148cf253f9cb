//! Uploads in parts through several replicas, and what becomes of parts that are never completed.

use std::time::Duration;

use batchwright::domain::time::Clock;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::common::builders::rows;
use crate::common::client::{Client, send, text};
use crate::common::eventually::{eventually, until};
use crate::stage::Stage;
use crate::upkeep::{age, blobs, path_of, put};

const HOUR: Duration = Duration::from_secs(3600);
const SWEEP: Duration = Duration::from_millis(1);

async fn create(client: &Client, bytes: usize) -> String {
    let new = json!({ "filename": "a.jsonl", "purpose": "batch", "bytes": bytes, "mime_type": "x" });
    text(&client.post("/v1/uploads", &new).await.ok()["id"]).to_owned()
}

async fn part(client: &Client, upload: &str, bytes: &[u8]) -> String {
    let form = Form::new().part("data", Part::bytes(bytes.to_vec()).file_name("part"));
    let request = client.request(Method::POST, &format!("/v1/uploads/{upload}/parts"));
    text(&send(request.multipart(form)).await.ok()["id"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_sent_to_several_replicas_become_one_file_in_an_object_store() {
    let stage = Stage::postgres_and_s3(&[]).await;
    let servers = [stage.serve(&[]).await, stage.serve(&["--role", "api"]).await];
    let clients = [servers[0].client(), servers[1].client()];
    let input = rows(400);
    let upload = create(&clients[0], input.len()).await;
    let mut part_ids = Vec::new();
    for (no, bytes) in input.as_bytes().chunks(input.len() / 5 + 1).enumerate() {
        part_ids.push(part(&clients[no % 2], &upload, bytes).await);
    }

    let path = format!("/v1/uploads/{upload}/complete");
    let body = json!({ "part_ids": part_ids });
    let (one, other) = futures::join!(clients[0].post(&path, &body), clients[1].post(&path, &body));
    let file_id = text(&one.ok()["file"]["id"]).to_owned();

    assert_eq!(one.ok(), other.ok());
    assert_eq!(clients[1].content(&file_id).await.text(), input);
    let path = format!("/v1/files/{file_id}/content");
    let range = send(clients[1].request(Method::GET, &path).header("range", "bytes=10000-30000")).await;
    assert_eq!(range.text(), input[10_000..=30_000]);
    let id = clients[1].create_batch(&file_id).await;
    let batch = clients[1].wait_for(&id, "completed").await;
    assert!(clients[0].verify(&input, &batch).await.holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_an_upload_are_kept_while_it_lives_and_removed_after_it() {
    let stage = Stage::postgres(&[]).await;
    let api = stage.serve(&["--role", "api"]).await;
    let upload = create(&api.client(), 100).await;
    part(&api.client(), &upload, &[0; 100]).await;
    let kept = blobs(&stage);
    // As a crash between the blob and the database leaves one.
    let orphan = path_of(&stage, put(&stage.blobs()).await);
    kept.iter().chain([&orphan]).for_each(|path| age(path));

    let daemon = stage.daemon(Clock::System, SWEEP).await;
    until("the orphan to be swept", || !orphan.exists()).await;
    let last = path_of(&stage, put(&stage.blobs()).await);
    age(&last);
    until("all directories to be swept", || !last.exists()).await;
    daemon.stop(Duration::ZERO).await;
    assert_eq!((kept.len(), blobs(&stage)), (1, kept.clone()), "the upload is pending");

    // It ends after an hour, is forgotten after two, and its blobs are removed after three.
    let daemon = stage.daemon(Clock::Ahead(2 * 3_600_000 + 60_000), HOUR).await;
    let is_forgotten =
        async || api.client().post(&format!("/v1/uploads/{upload}/cancel"), &json!({})).await.status == 404;
    eventually("the upload to be forgotten", async || is_forgotten().await.then_some(())).await;
    daemon.stop(Duration::ZERO).await;
    assert_eq!(blobs(&stage), kept, "a completion may still read them");
    let daemon = stage.daemon(Clock::Ahead(4 * 3_600_000), HOUR).await;
    until("the parts to be removed", || blobs(&stage).is_empty()).await;
    daemon.stop(Duration::ZERO).await;
}

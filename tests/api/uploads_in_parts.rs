//! Files that are uploaded in parts (contract §5).

use futures::future::join_all;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::common::builders::rows;
use crate::common::client::{Answer, Client, error, send, text};
use crate::common::test_app::TestApp;

const MIB: usize = 1 << 20;

fn new_upload(purpose: &str, bytes: usize) -> Value {
    json!({ "filename": "big.jsonl", "purpose": purpose, "bytes": bytes, "mime_type": "application/jsonl" })
}

async fn create(client: &Client, purpose: &str, bytes: usize) -> String {
    text(&client.post("/v1/uploads", &new_upload(purpose, bytes)).await.ok()["id"]).to_owned()
}

async fn try_part(client: &Client, upload: &str, bytes: impl Into<Vec<u8>>) -> Answer {
    let form = Form::new().part("data", Part::bytes(bytes.into()).file_name("upload"));
    send(client.request(Method::POST, &format!("/v1/uploads/{upload}/parts")).multipart(form)).await
}

async fn part(client: &Client, upload: &str, bytes: impl Into<Vec<u8>>) -> String {
    text(&try_part(client, upload, bytes).await.ok()["id"]).to_owned()
}

async fn complete(client: &Client, upload: &str, part_ids: &[String]) -> Answer {
    client.post(&format!("/v1/uploads/{upload}/complete"), &json!({ "part_ids": part_ids })).await
}

async fn cancel(client: &Client, upload: &str) -> Answer {
    send(client.request(Method::POST, &format!("/v1/uploads/{upload}/cancel"))).await
}

/// Uploads a batch input file in parts that begin and end in the middle of rows.
async fn upload_in_parts(client: &Client, input: &str, part_bytes: usize) -> String {
    let upload = create(client, "batch", input.len()).await;
    // Side by side, and the last one first.
    let sent = input.as_bytes().chunks(part_bytes).rev().map(|bytes| part(client, &upload, bytes));
    let mut part_ids = join_all(sent).await;
    part_ids.reverse();
    text(&complete(client, &upload, &part_ids).await.ok()["file"]["id"]).to_owned()
}

#[tokio::test]
async fn a_file_in_parts_is_a_file_like_any_other() {
    let app = TestApp::start().await;
    let input = rows(40);

    let file_id = upload_in_parts(&app, &input, 333).await;

    assert_eq!(app.content(&file_id).await.text(), input);
    let path = format!("/v1/files/{file_id}/content");
    let range = send(app.request(Method::GET, &path).header("range", "bytes=300-1100")).await;
    assert_eq!((range.status, range.text()), (206, input[300..=1100].to_owned()));
    let id = app.create_batch(&file_id).await;
    let batch = app.wait_for(&id, "completed").await;
    assert!(app.verify(&input, &batch).await.holds());
    assert_eq!(app.delete(&format!("/v1/files/{file_id}")).await.ok()["deleted"], true);
    assert_eq!(app.content(&file_id).await.status, 404);
}

#[tokio::test]
async fn the_objects_have_their_keys_in_order() {
    let app = TestApp::start().await;
    let input = rows(1);
    let mut new = new_upload("batch", input.len());
    new["expires_after"] = json!({ "anchor": "created_at", "seconds": 7200 });

    let created = app.post("/v1/uploads", &new).await;
    let upload = created.ok();
    let (id, at) = (text(&upload["id"]), upload["created_at"].as_i64().expect("a time"));
    let part = try_part(&app, id, input.clone()).await;
    let part_id = text(&part.ok()["id"]).to_owned();
    let completed = complete(&app, id, std::slice::from_ref(&part_id)).await;
    let file = &completed.ok()["file"];

    let length = input.len();
    let shown = |status: &str, file: &str| {
        format!(
            r#"{{"id":"{id}","object":"upload","bytes":{length},"created_at":{at},"filename":"big.jsonl",{}{}{file}}}"#,
            format_args!(r#""purpose":"batch","status":"{status}","#),
            format_args!(r#""expires_at":{}"#, at + 3600)
        )
    };
    assert!(id.starts_with("upload_") && id.len() == 39, "{id}");
    assert!(part_id.starts_with("part_") && part_id.len() == 37, "{part_id}");
    assert_eq!(created.text(), shown("pending", ""));
    assert_eq!(completed.text(), shown("completed", &format!(r#","file":{}"#, app_file(&app, file).await)));
    let part_at = part.json()["created_at"].as_i64().expect("a time");
    let expected = format!(r#"{{"id":"{part_id}","object":"upload.part","created_at":{part_at},"upload_id":"{id}"}}"#);
    assert_eq!(part.text(), expected);
    assert_eq!((file["created_at"].as_i64(), file["expires_at"].as_i64()), (Some(at), Some(at + 7200)));
    assert_eq!((&file["filename"], &file["bytes"]), (&json!("big.jsonl"), &json!(length)));
}

/// A file object as the server sends it for itself.
async fn app_file(app: &TestApp, file: &Value) -> String {
    app.get(&format!("/v1/files/{}", text(&file["id"]))).await.text()
}

#[tokio::test]
async fn completing_again_returns_the_same_object_also_at_once() {
    let app = TestApp::start().await;
    let input = rows(3);
    let upload = create(&app, "batch", input.len()).await;
    let part_ids = [part(&app, &upload, input.clone()).await];

    let at_once = join_all((0..8).map(|_| complete(&app, &upload, &part_ids))).await;
    let later = complete(&app, &upload, &part_ids).await;

    let first = at_once[0].ok();
    assert!(at_once.iter().chain([&later]).all(|answer| answer.ok() == first), "{at_once:?}");
    let files = app.get("/v1/files").await.ok();
    assert_eq!(files["data"].as_array().map(Vec::len), Some(1), "{files}");
    // The bytes and one row index: those that were too late leave none behind.
    assert_eq!(app.blobs().len(), 2);
}

#[tokio::test]
async fn the_md5_of_the_whole_is_checked_in_either_case() {
    let app = TestApp::start().await;
    let body = |part_ids: &[String], md5: &str| json!({ "part_ids": part_ids, "md5": md5 });
    for (md5, holds) in [
        ("5EB63BBBE01EEED093CB22BB8F5ACDC3", true),
        ("5eb63bbbe01eeed093cb22bb8f5acdc3", true),
        ("5eb63bbbe01eeed093cb22bb8f5acdc4", false),
        ("md5", false),
    ] {
        let upload = create(&app, "assistants", 11).await;
        let part_ids = [part(&app, &upload, "hello ").await, part(&app, &upload, "world").await];

        let answer = app.post(&format!("/v1/uploads/{upload}/complete"), &body(&part_ids, md5)).await;

        let message = "The bytes have the MD5 5eb63bbbe01eeed093cb22bb8f5acdc3, which is not the one given. Send the \
                       part again that was damaged.";
        if holds {
            assert_eq!(app.content(text(&answer.ok()["file"]["id"])).await.text(), "hello world");
        } else {
            assert_eq!((answer.status, answer.json()), (400, error(message, Some("md5"), None)));
        }
    }
}

#[tokio::test]
async fn a_completion_names_each_part_once_and_all_bytes() {
    type Case = (Value, String, &'static str, Option<&'static str>);
    let app = TestApp::start().await;
    let upload = create(&app, "user_data", 6).await;
    let [first, second] = [part(&app, &upload, "abc").await, part(&app, &upload, "def").await];
    let unused = part(&app, &upload, "xyz").await;
    let other = create(&app, "user_data", 3).await;
    let foreign = part(&app, &other, "ghi").await;
    let named = |ids: &[&str]| json!({ "part_ids": ids });
    let cases: [Case; 8] = [
        (json!({}), "Missing required parameter: 'part_ids'.".into(), "part_ids", Some("missing_required_parameter")),
        (
            json!({ "part_ids": [1] }),
            "Invalid type for 'part_ids[0]': expected a string, but got an integer instead.".into(),
            "part_ids[0]",
            Some("invalid_type"),
        ),
        (
            json!({ "part_ids": [], "md5": 5 }),
            "Invalid type for 'md5': expected a string, but got an integer instead.".into(),
            "md5",
            Some("invalid_type"),
        ),
        (named(&[&first]), bytes_together(3), "part_ids", None),
        (named(&[&first, &second, &unused]), bytes_together(9), "part_ids", None),
        (named(&[&first, &first]), format!("The part '{first}' is named twice."), "part_ids", None),
        (named(&[&first, &foreign]), format!("The upload has no part '{foreign}'."), "part_ids", None),
        (named(&[&first, "part_x"]), "The upload has no part 'part_x'.".into(), "part_ids", None),
    ];

    for (body, message, param, code) in cases {
        let answer = app.post(&format!("/v1/uploads/{upload}/complete"), &body).await;
        assert_eq!((answer.status, answer.json()), (400, error(&message, Some(param), code)), "{body}");
    }
    let file = complete(&app, &upload, &[second, first]).await.ok()["file"].clone();

    assert_eq!(app.content(text(&file["id"])).await.text(), "defabc");
}

fn bytes_together(bytes: u64) -> String {
    format!("The parts have {bytes} bytes together, but the upload was created for 6.")
}

#[tokio::test]
async fn an_upload_that_has_ended_takes_nothing_more() {
    let app = TestApp::start().await;
    let completed = create(&app, "user_data", 3).await;
    let part_ids = [part(&app, &completed, "abc").await];
    complete(&app, &completed, &part_ids).await.ok();
    let cancelled = create(&app, "user_data", 3).await;
    part(&app, &cancelled, "abc").await;

    let answer = cancel(&app, &cancelled).await.ok();

    assert_eq!((&answer["status"], answer.get("file")), (&json!("cancelled"), None));
    assert_eq!(cancel(&app, &cancelled).await.ok(), answer, "again");
    let part_to = |status| format!("No part can be added to the upload: the status of the upload is '{status}'.");
    let of = |message: &str| error(message, None, None);
    let refused = |answer: Answer| (answer.status, answer.json());
    assert_eq!(refused(try_part(&app, &completed, "x").await), (400, of(&part_to("completed"))));
    assert_eq!(refused(try_part(&app, &cancelled, "x").await), (400, of(&part_to("cancelled"))));
    let message = "The upload cannot be cancelled: the status of the upload is 'completed'.";
    assert_eq!(refused(cancel(&app, &completed).await), (400, of(message)));
    let message = "The upload cannot be completed: its status is 'cancelled'.";
    assert_eq!(refused(complete(&app, &cancelled, &part_ids).await), (400, of(message)));
}

#[tokio::test]
async fn an_upload_that_is_not_there_is_not_found() {
    let app = TestApp::start().await;
    for id in ["upload_00000000000000000000000000000000", "upload_x"] {
        let expected = (404, error(&format!("No such Upload object: {id}"), Some("upload_id"), None));
        for answer in [try_part(&app, id, "x").await, complete(&app, id, &[]).await, cancel(&app, id).await] {
            assert_eq!((answer.status, answer.json()), expected);
        }
    }
}

#[tokio::test]
async fn an_upload_that_could_not_become_a_file_is_refused_at_once() {
    type Case = (Value, &'static str, Option<&'static str>, Option<&'static str>);
    let app = TestApp::with(&["--max-file-bytes", "300MiB"]).await;
    let with = |name: &str, value: Value| {
        let mut new = new_upload("batch", 5);
        new[name] = value;
        new
    };
    let above = "Invalid 'bytes': integer above maximum value. Expected a value <= 8589934592, but got 8589934593 \
                 instead.";
    let purposes = "'x' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'";
    let cases: [Case; 6] = [
        (with("mime_type", Value::Null), "Missing required parameter: 'mime_type'.", Some("mime_type"), MISSING),
        (with("bytes", Value::Null), "Missing required parameter: 'bytes'.", Some("bytes"), MISSING),
        (with("bytes", json!(8_589_934_593_u64)), above, Some("bytes"), Some("integer_above_max_value")),
        (with("bytes", json!(300 * MIB + 1)), "File is too large.", Some("bytes"), None),
        (with("purpose", json!("x")), purposes, Some("purpose"), None),
        (with("filename", json!("a.txt")), "Invalid file format for Batch API. Must be .jsonl", None, None),
    ];

    for (body, message, param, code) in cases {
        let answer = app.post("/v1/uploads", &body).await;
        assert_eq!((answer.status, answer.json()), (400, error(message, param, code)), "{body}");
    }
    // The limit of other purposes is that of uploads.
    app.post("/v1/uploads", &new_upload("user_data", 8 << 30)).await.ok();
}

const MISSING: Option<&str> = Some("missing_required_parameter");

#[tokio::test]
async fn a_file_in_parts_that_is_no_batch_input_file_is_refused_and_stays_pending() {
    let app = TestApp::start().await;
    let input = rows(1);
    let upload = create(&app, "batch", input.len()).await;
    let bad = part(&app, &upload, vec![b'x'; input.len()]).await;
    let good = part(&app, &upload, input.clone()).await;

    let refused = complete(&app, &upload, &[bad]).await;
    let completed = complete(&app, &upload, &[good]).await.ok();

    let message = "Invalid file format for Batch API. Must be .jsonl";
    assert_eq!((refused.status, refused.json()), (400, error(message, None, None)));
    assert_eq!(app.content(text(&completed["file"]["id"])).await.text(), input);
}

#[tokio::test]
async fn a_part_may_have_64_mebibytes_and_no_more() {
    let app = TestApp::start().await;
    let upload = create(&app, "user_data", 64 * MIB).await;

    let larger = try_part(&app, &upload, vec![0; 64 * MIB + 1]).await;
    let largest = part(&app, &upload, vec![0; 64 * MIB]).await;

    let message = "The part is too large: it may have 67108864 bytes (64 MiB).";
    assert_eq!((larger.status, larger.json()), (400, error(message, Some("data"), None)));
    assert_eq!(complete(&app, &upload, &[largest]).await.ok()["file"]["bytes"], 64 * MIB);
    assert_eq!(app.blobs().len(), 1, "nothing is left of the part that was refused");
}

#[tokio::test]
async fn a_part_is_a_form_with_one_part_named_data() {
    let app = TestApp::start().await;
    let upload = create(&app, "user_data", 3).await;
    let path = format!("/v1/uploads/{upload}/parts");
    let file = |bytes: &'static str| Part::text(bytes).file_name("x");
    let two = Form::new().part("data", file("abc")).part("data", file("def"));

    let plain = send(app.request(Method::POST, &path).body("abc")).await;
    let without = send(app.request(Method::POST, &path).multipart(Form::new().part("file", file("abc")))).await;
    let twice = send(app.request(Method::POST, &path).multipart(two)).await;

    let message = "The request must be a multipart/form-data form with the part 'data'.";
    assert_eq!((plain.status, plain.json()), (400, error(message, None, None)));
    let message = "Missing required parameter: 'data'.";
    assert_eq!((without.status, without.json()), (400, error(message, Some("data"), MISSING)));
    let message = "The form has two parts named 'data'.";
    assert_eq!((twice.status, twice.json()), (400, error(message, Some("data"), None)));
    assert!(app.blobs().is_empty(), "nothing is left");
}

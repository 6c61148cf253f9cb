//! Uploads and downloads that are compressed.

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::builders::rows;
use crate::common::client::{Answer, error, new_batch, send, text};
use crate::common::raw_http::form;
use crate::common::test_app::TestApp;

async fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(bytes).await.expect("a Vec takes all");
    encoder.shutdown().await.expect("a Vec takes all");
    encoder.into_inner()
}

async fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZstdEncoder::new(Vec::new());
    encoder.write_all(bytes).await.expect("a Vec takes all");
    encoder.shutdown().await.expect("a Vec takes all");
    encoder.into_inner()
}

/// The upload of a file for this purpose, which stands before or behind the file.
async fn upload(app: &TestApp, bytes: Vec<u8>, purpose: &'static str, is_first: bool) -> Answer {
    let form = if is_first { Form::new().text("purpose", purpose) } else { Form::new() };
    let form = form.part("file", Part::bytes(bytes).file_name("input.jsonl.gz"));
    app.upload_form(if is_first { form } else { form.text("purpose", purpose) }).await
}

#[tokio::test]
async fn a_packed_batch_input_file_is_kept_unpacked_in_any_order_of_the_form() {
    let app = TestApp::start().await;
    let input = rows(20);
    let halves = input.split_at(input.len() / 2);
    let two_members = [gzip(halves.0.as_bytes()).await, gzip(halves.1.as_bytes()).await].concat();
    let two_frames = [zstd(halves.0.as_bytes()).await, zstd(halves.1.as_bytes()).await].concat();

    for packed in [two_members, two_frames] {
        for is_first in [true, false] {
            let blobs = app.blobs().len();

            let file = upload(&app, packed.clone(), "batch", is_first).await.ok();

            assert_eq!(file["bytes"], input.len());
            assert_eq!(app.content(text(&file["id"])).await.text(), input);
            assert_eq!(app.blobs().len(), blobs + 2, "the bytes and the row index");
            let batch = app.create_batch(text(&file["id"])).await;
            let batch = app.wait_for(&batch, "completed").await;
            assert!(app.verify(&input, &batch).await.holds());
        }
    }
}

#[tokio::test]
async fn a_packed_file_of_another_purpose_stays_as_it_is() {
    let app = TestApp::start().await;
    let packed = gzip(rows(3).as_bytes()).await;

    for is_first in [true, false] {
        let file = upload(&app, packed.clone(), "user_data", is_first).await.ok();

        assert_eq!(app.content(text(&file["id"])).await.bytes, packed);
    }
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_refused_and_nothing_is_left() {
    let app = TestApp::with(&["--role", "api", "--max-file-bytes", "1MiB", "--max-batch-bytes", "1MiB"]).await;
    let (whole, frame) = (gzip(rows(50).as_bytes()).await, zstd(rows(50).as_bytes()).await);
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 3].to_vec();
    let damaged = |packing| {
        format!("The {packing} data cannot be unpacked: it is damaged, or its end is missing. Please send it again.")
    };
    let bomb = vec![b'\n'; 100 << 20];
    let cases = [
        (cut(&whole), damaged("gzip")),
        (cut(&frame), damaged("zstd")),
        ([&whole[..], b"x"].concat(), damaged("gzip")),
        (gzip(&bomb).await, "File is too large.".to_owned()),
        (zstd(&bomb).await, "File is too large.".to_owned()),
        (gzip(b"no rows").await, "Invalid file format for Batch API. Must be .jsonl".to_owned()),
        (gzip(b"").await, "Invalid file format for Batch API. The file is empty.".to_owned()),
    ];

    for (packed, message) in cases {
        for is_first in [true, false] {
            let answer = upload(&app, packed.clone(), "batch", is_first).await;

            assert_eq!((answer.status, answer.json()), (400, error(&message, None, None)));
        }
    }
    assert!(app.blobs().is_empty(), "{:?}", app.blobs());
}

#[tokio::test]
async fn requests_of_a_batch_are_unpacked_and_other_bodies_are_refused() {
    let app = TestApp::with(&["--role", "api"]).await;
    let params = json!({ "model": "m", "max_tokens": 1, "messages": [{ "role": "user", "content": "Hi" }] });
    let message_batch = json!({ "requests": [{ "custom_id": "a", "params": params }] }).to_string();
    let mut batch_of_rows = new_batch("", "24h");
    batch_of_rows["input_file_id"] = Value::Null;
    batch_of_rows["requests"] = json!([{ "body": { "model": "m", "messages": [] } }]);
    let upload = json!({ "filename": "a", "purpose": "batch", "bytes": 1, "mime_type": "x" }).to_string();
    let cases = [
        ("/v1/messages/batches", message_batch, 200, 400),
        ("/v1/batches", batch_of_rows.to_string(), 200, 400),
        ("/v1/uploads", upload, 415, 415),
    ];
    for (path, body, whole, cut) in cases {
        let packed = gzip(body.as_bytes()).await;
        let post = async |bytes: &[u8]| {
            let request = app.request(Method::POST, path).header("content-type", "application/json");
            send(request.header("content-encoding", "gzip").body(bytes.to_vec())).await.status
        };

        assert_eq!((post(&packed).await, post(&packed[..packed.len() - 3]).await), (whole, cut), "{path}");
    }
}

#[tokio::test]
async fn a_body_is_unpacked_as_its_content_encoding_says() {
    let app = TestApp::start().await;
    let input = rows(5);
    let file = "Content-Disposition: form-data; name=file; filename=a.jsonl";
    let parts = [(file, input.as_bytes()), ("Content-Disposition: form-data; name=purpose", b"batch")];
    let body = form("b", &parts);
    let post = async |coding: &str, body: Vec<u8>| {
        let request = app.request(Method::POST, "/v1/files").header("content-encoding", coding);
        send(request.header("content-type", "multipart/form-data; boundary=b").body(body)).await
    };

    for (coding, packed) in [("gzip", gzip(&body).await), ("ZSTD", zstd(&body).await), ("identity", body.clone())] {
        let file = post(coding, packed).await.ok();
        assert_eq!(app.content(text(&file["id"])).await.text(), input, "{coding}");
    }
    let cut = post("gzip", gzip(&body).await[..100].to_vec()).await;
    let unknown = post("br", body).await;

    let message = "The gzip data cannot be unpacked: it is damaged, or its end is missing. Please send it again.";
    assert_eq!((cut.status, cut.json()), (400, error(message, None, None)));
    let message = "The Content-Encoding 'br' is not supported: send gzip or zstd.";
    assert_eq!((unknown.status, unknown.json()), (415, error(message, None, None)));
}

#[tokio::test]
async fn a_packed_file_in_parts_is_unpacked_when_it_is_completed() {
    let app = TestApp::with(&["--role", "api"]).await;
    let input = rows(20);
    let packed = zstd(input.as_bytes()).await;
    let new = json!({ "filename": "a.jsonl.zst", "purpose": "batch", "bytes": packed.len(), "mime_type": "x" });
    let upload = app.post("/v1/uploads", &new).await.ok();
    let path = format!("/v1/uploads/{}", text(&upload["id"]));
    let mut part_ids = Vec::new();
    for bytes in packed.chunks(packed.len() / 2 + 1) {
        let form = Form::new().part("data", Part::bytes(bytes.to_vec()).file_name("x"));
        let part = send(app.request(Method::POST, &format!("{path}/parts")).multipart(form)).await.ok();
        part_ids.push(part["id"].clone());
    }
    let complete = async |ids: Vec<Value>| app.post(&format!("{path}/complete"), &json!({ "part_ids": ids })).await;

    let wrong_order = complete(part_ids.iter().rev().cloned().collect()).await;
    let completed = complete(part_ids).await.ok();

    assert_eq!(wrong_order.status, 400, "{wrong_order:?}");
    assert_eq!(completed["bytes"], packed.len());
    assert_eq!(completed["file"]["bytes"], input.len());
    assert_eq!(app.content(text(&completed["file"]["id"])).await.text(), input);
}

async fn unzstd(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut decoder = async_compression::tokio::bufread::ZstdDecoder::new(bytes);
    decoder.read_to_string(&mut text).await.expect("it is whole and UTF-8");
    text
}

#[tokio::test]
async fn a_download_is_packed_if_the_client_accepts_zstd_and_asks_for_all_of_it() {
    let app = TestApp::start().await;
    let input = rows(100);
    let path = format!("/v1/files/{}/content", app.upload(input.clone()).await);
    let get = async |name: &'static str, value: &str, coding: &str| {
        send(app.request(Method::GET, &path).header(name, value).header("accept-encoding", coding)).await
    };

    let plain = get("x", "y", "gzip, deflate").await;
    let packed = get("x", "y", "gzip, zstd;q=0.5").await;
    let part = get("range", "bytes=10-2000", "zstd").await;
    let tags = [plain.header("etag"), packed.header("etag")];
    let known = [get("if-none-match", tags[0], "zstd").await, get("if-none-match", tags[1], "zstd").await];

    assert_eq!((plain.header("content-encoding"), plain.text()), ("", input.clone()));
    assert_eq!((packed.header("content-encoding"), unzstd(&packed.bytes).await), ("zstd", input.clone()));
    assert!(packed.bytes.len() < input.len() / 2, "{}", packed.bytes.len());
    assert_eq!((packed.header("content-length"), packed.header("accept-ranges")), ("", ""));
    assert_eq!(tags[1], tags[0].trim_end_matches('"').to_owned() + "-zstd\"");
    assert_eq!((part.status, part.header("content-encoding"), part.text()), (206, "", input[10..=2000].to_owned()));
    assert!([&plain, &packed, &part].iter().all(|answer| answer.header("vary").contains("accept-encoding")));
    for (answer, tag) in known.iter().zip(tags) {
        assert_eq!((answer.status, answer.header("etag")), (304, tag));
    }
}

#[tokio::test]
async fn results_are_packed_if_the_client_accepts_zstd() {
    let app = TestApp::start().await;
    let id = app.submit(rows(50)).await;
    app.wait_for(&id, "completed").await;

    for query in ["", "?order=input"] {
        let path = format!("/v1/batches/{id}/results{query}");
        let plain = app.get(&path).await;
        let packed = send(app.request(Method::GET, &path).header("accept-encoding", "zstd")).await;

        assert_eq!((plain.header("content-encoding"), packed.header("content-encoding")), ("", "zstd"));
        assert_eq!(unzstd(&packed.bytes).await, plain.text());
        assert_eq!(packed.header("batchwright-next-cursor"), plain.header("batchwright-next-cursor"));
    }
}

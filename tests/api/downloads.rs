//! Downloading: headers, names, ranges.

use reqwest::Method;
use reqwest::header::RANGE;

use crate::common::builders::rows;
use crate::common::client::{Answer, error, new_batch, send};
use crate::common::raw_http::{form, upload};
use crate::common::test_app::TestApp;

async fn ranged(app: &TestApp, file_id: &str, range: &str) -> Answer {
    send(app.request(Method::GET, &format!("/v1/files/{file_id}/content")).header(RANGE, range)).await
}

#[tokio::test]
async fn a_download_is_the_bytes_that_were_uploaded() {
    let app = TestApp::start().await;
    let input = format!("\u{feff}{}\r\n", rows(2));
    let file_id = app.upload(input.clone()).await;

    let answer = app.content(&file_id).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.text(), input);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("content-length"), input.len().to_string());
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"input.jsonl\"");
    assert_eq!(answer.header("accept-ranges"), "bytes");
}

#[tokio::test]
async fn a_large_download_comes_whole_and_in_order() {
    let app = TestApp::start().await;
    let input: Vec<u8> = (0..5_000_000_u32).flat_map(|number| [number.to_le_bytes()[0], b'\n']).collect();
    let part = reqwest::multipart::Part::bytes(input.clone()).file_name("x");
    let form = reqwest::multipart::Form::new().text("purpose", "user_data").part("file", part);
    let file = app.upload_form(form).await.ok();

    let answer = app.content(file["id"].as_str().expect("an id")).await;

    assert!(answer.bytes == input, "{} bytes", answer.bytes.len());
}

#[tokio::test]
async fn head_tells_of_a_download_without_its_bytes() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(2)).await;

    let answer = send(app.request(Method::HEAD, &format!("/v1/files/{file_id}/content"))).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), rows(2).len().to_string());
    assert_eq!(answer.bytes, b"");
}

#[tokio::test]
async fn a_range_gives_that_part_of_a_file() {
    let app = TestApp::start().await;
    let input = rows(2);
    let file_id = app.upload(input.clone()).await;
    let all = input.len();
    let cases = [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=10-", 10, all),
        ("bytes=-7", all - 7, all),
        ("bytes=3-999999", 3, all),
    ];

    for (range, start, end) in cases {
        let answer = ranged(&app, &file_id, range).await;

        assert_eq!(answer.status, 206, "{range}");
        assert_eq!(answer.text(), input[start..end], "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/{all}", end - 1), "{range}");
        assert_eq!(answer.header("content-length"), (end - start).to_string(), "{range}");
    }
}

#[tokio::test]
async fn a_condition_on_the_entity_tag_is_honoured() {
    let app = TestApp::start().await;
    let (input, path) = (rows(2), format!("/v1/files/{}/content", app.upload(rows(2)).await));
    let whole = app.get(&path).await;
    let tag = whole.header("etag");
    let (weak, listed) = (format!("W/{tag}"), format!("\"x\" , W/{tag}"));
    let (date, beyond) = ("Thu, 01 Jan 2026 00:00:00 GMT", "bytes=9999-");
    let cases = [
        ("none-match", tag, None, 304),
        ("none-match", &weak, None, 304),
        ("none-match", &listed, None, 304),
        ("none-match", "*", None, 304),
        ("none-match", tag, Some("bytes=0-1"), 304),
        ("none-match", "\"x\", \"y\"", None, 200),
        ("none-match", "\"x\"", Some("bytes=0-1"), 206),
        ("range", tag, Some("bytes=0-1"), 206),
        ("range", tag, Some(beyond), 416),
        ("range", tag, None, 200),
        // Another tag, a weak one or a date is of another file: everything is sent.
        ("range", "\"x\"", Some("bytes=0-1"), 200),
        ("range", &weak, Some("bytes=0-1"), 200),
        ("range", date, Some("bytes=0-1"), 200),
        ("range", "\"x\"", Some(beyond), 200),
    ];

    assert!(tag.starts_with("\"file-") && tag.ends_with('"'), "{tag}");
    assert_ne!(app.content(&app.upload(input.clone()).await).await.header("etag"), tag);
    for (condition, value, range, status) in cases {
        let mut request = app.request(Method::GET, &path).header(format!("if-{condition}"), value);
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let answer = send(request).await;
        let bytes = match status {
            200 => input.clone(),
            206 => input[..2].to_owned(),
            _ => String::new(),
        };

        assert_eq!(answer.status, status, "{condition} {value} {range:?}");
        assert!(status == 416 || (answer.text(), answer.header("etag")) == (bytes, tag), "{condition} {answer:?}");
    }
}

#[tokio::test]
async fn a_range_beyond_the_end_cannot_be_satisfied() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;

    let answer = ranged(&app, &file_id, &format!("bytes={}-", rows(1).len())).await;

    assert_eq!(answer.status, 416);
    assert_eq!(answer.header("content-range"), format!("bytes */{}", rows(1).len()));
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_range_that_is_not_understood_is_ignored() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;

    let answer = ranged(&app, &file_id, "bytes=0-1,3-4").await;

    assert_eq!((answer.status, answer.text()), (200, rows(1)));
}

#[tokio::test]
async fn a_filename_keeps_its_last_part_and_cannot_break_the_header() {
    let app = TestApp::start().await;
    let input = rows(1);
    let cases = [
        ("../../etc/passwd", "passwd", "attachment; filename=\"passwd\""),
        ("C:\\temp\\a b.jsonl", "a b.jsonl", "attachment; filename=\"a b.jsonl\""),
        (r#"a\"b.jsonl"#, "a\"b.jsonl", "attachment; filename=\"a_b.jsonl\"; filename*=UTF-8''a%22b.jsonl"),
        ("a%0D%0ASet-Cookie: x", "a%0D%0ASet-Cookie: x", "attachment; filename=\"a%0D%0ASet-Cookie: x\""),
        ("é.jsonl", "é.jsonl", "attachment; filename=\"_.jsonl\"; filename*=UTF-8''%C3%A9.jsonl"),
        ("a\tb.jsonl", "ab.jsonl", "attachment; filename=\"ab.jsonl\""),
        ("", "upload", "attachment; filename=\"upload\""),
    ];

    for (sent, kept, disposition) in cases {
        let header = format!("Content-Disposition: form-data; name=\"file\"; filename=\"{sent}\"");
        let parts =
            [(header.as_str(), input.as_bytes()), ("Content-Disposition: form-data; name=\"purpose\"", b"batch")];
        let file = upload(app.address, "multipart/form-data; boundary=b", &form("b", &parts)).await.json();
        let answer = app.content(file["id"].as_str().unwrap_or_else(|| panic!("{sent}: {file}"))).await;

        assert_eq!(file["filename"], kept, "{sent}");
        assert_eq!(answer.header("content-disposition"), disposition, "{sent}");
    }
}

#[tokio::test]
async fn a_line_break_in_a_filename_is_no_header() {
    let app = TestApp::start().await;
    let header = "Content-Disposition: form-data; name=\"file\"; filename=\"a\r\nX-Injected: yes\r\n.jsonl\"";
    let input = rows(1);
    let parts = [(header, input.as_bytes()), ("Content-Disposition: form-data; name=\"purpose\"", b"batch")];

    let answer = upload(app.address, "multipart/form-data; boundary=b", &form("b", &parts)).await;

    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!answer.text.to_lowercase().contains("x-injected:"), "{answer:?}");
}

#[tokio::test]
async fn a_deleted_file_is_gone() {
    let app = TestApp::start().await;
    let file_id = app.upload(rows(1)).await;

    let deleted = app.delete(&format!("/v1/files/{file_id}")).await;

    assert_eq!(deleted.text(), format!(r#"{{"object":"file","deleted":true,"id":"{file_id}"}}"#));
    let gone = error(&format!("No such File object: {file_id}"), Some("id"), None);
    let again = app.delete(&format!("/v1/files/{file_id}")).await;
    assert_eq!((again.status, again.json()), (404, gone.clone()));
    let answer = app.content(&file_id).await;
    assert_eq!((answer.status, answer.json()), (404, gone));
}

#[tokio::test]
async fn result_files_are_listed_named_and_kept_as_the_batch_said() {
    let app = TestApp::start().await;
    let mut new = new_batch(&app.upload(rows(1)).await, "24h");
    new["output_expires_after"] = serde_json::json!({ "anchor": "created_at", "seconds": 7200 });
    let batch = app.post("/v1/batches", &new).await.ok();
    let id = batch["id"].as_str().expect("an id");

    let batch = app.wait_for(id, "completed").await;

    let listed = app.get("/v1/files?purpose=batch_output").await.ok();
    let file = &listed["data"][0];
    assert_eq!(file["id"], batch["output_file_id"]);
    assert_eq!(file["filename"], format!("{id}_output.jsonl"));
    let kept = file["expires_at"].as_i64().expect("a time") - file["created_at"].as_i64().expect("a time");
    assert_eq!(kept, 7200);
    let content = app.content(file["id"].as_str().expect("an id")).await;
    assert_eq!(file["bytes"], content.bytes.len());
    assert!(content.text().ends_with("\"error\":null}\n"), "{}", content.text());
}

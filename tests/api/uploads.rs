//! The form of an upload: parts in any order and any lawful framing, and what is refused.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::common::builders::rows;
use crate::common::client::{Answer, error, new_batch};
use crate::common::eventually::until;
use crate::common::raw_http::{chunked, exchange, form, upload, upload_head, usual_parts};
use crate::common::test_app::TestApp;

const FORM: &str = "multipart/form-data; boundary=b";

fn file_part(bytes: impl Into<Vec<u8>>) -> Part {
    Part::bytes(bytes.into()).file_name("input.jsonl")
}

fn assert_refused(answer: &Answer, expected: &Value) {
    assert_eq!((answer.status, &answer.json()), (400, expected));
}

#[tokio::test]
async fn a_file_object_has_its_nine_keys_in_order() {
    let app = TestApp::start().await;

    let answer = app.try_upload(rows(1)).await;

    let file = answer.ok();
    let id = file["id"].as_str().expect("an id");
    let created_at = file["created_at"].as_i64().expect("a time");
    assert!(id.starts_with("file-"), "{id}");
    let expected = format!(
        concat!(
            r#"{{"object":"file","id":"{}","purpose":"batch","filename":"input.jsonl","bytes":{},"#,
            r#""created_at":{},"expires_at":{},"status":"processed","status_details":null}}"#
        ),
        id,
        rows(1).len(),
        created_at,
        created_at + 2_592_000
    );
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn parts_may_come_in_any_order() {
    let app = TestApp::start().await;
    let orders = [
        ["file", "purpose", "expires_after[anchor]", "expires_after[seconds]"],
        ["purpose", "expires_after[seconds]", "expires_after[anchor]", "file"],
        ["expires_after[seconds]", "file", "expires_after[anchor]", "purpose"],
    ];

    for order in orders {
        let form = order.into_iter().fold(Form::new(), |form, name| match name {
            "file" => form.part("file", file_part(rows(1))),
            "purpose" => form.text("purpose", "batch"),
            "expires_after[anchor]" => form.text(name, "created_at"),
            _ => form.text(name, "3600"),
        });
        let file = app.upload_form(form).await.ok();

        let kept = file["expires_at"].as_i64().expect("a time") - file["created_at"].as_i64().expect("a time");
        assert_eq!(kept, 3600, "{order:?}");
        let batch = app.create_batch(file["id"].as_str().expect("an id")).await;
        app.wait_for(&batch, "completed").await;
    }
}

#[tokio::test]
async fn a_body_in_chunks_needs_no_length() {
    let app = TestApp::start().await;
    let input = rows(3);

    for size in [1, 7, 100_000] {
        let mut request = upload_head(FORM, "Transfer-Encoding: chunked");
        request.extend(chunked(&form("b", &usual_parts(input.as_bytes())), size));
        let answer = exchange(app.address, &request).await;

        assert_eq!(answer.status, 200, "{answer:?}");
        let file = answer.json();
        assert_eq!(file["bytes"], input.len());
        assert_eq!(app.content(file["id"].as_str().expect("an id")).await.text(), input);
    }
}

#[tokio::test]
async fn a_boundary_may_be_quoted_and_hold_equals_signs_and_underscores() {
    let app = TestApp::start().await;
    let boundary = "=_NextPart_000_=0123456789'()+,-./:? x";

    let body = form(boundary, &usual_parts(rows(1).as_bytes()));
    let answer = upload(app.address, &format!("multipart/form-data; boundary=\"{boundary}\""), &body).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["bytes"], rows(1).len());
}

#[tokio::test]
async fn names_may_be_unquoted_and_parts_may_have_more_headers() {
    let app = TestApp::start().await;
    let input = rows(1);
    let parts = [
        ("Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=purpose", &b"batch"[..]),
        (
            "Content-Disposition: form-data; name=file; filename=a.jsonl; filename*=utf-8''a.jsonl\r\n\
             Content-Type: application/octet-stream\r\nX-Whatever: yes",
            input.as_bytes(),
        ),
    ];

    let answer = upload(app.address, FORM, &form("b", &parts)).await;

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["filename"], "a.jsonl");
}

#[tokio::test]
async fn parts_of_other_names_are_ignored() {
    let app = TestApp::start().await;
    let form = Form::new()
        .text("note", "x".repeat(100_000))
        .part("file", file_part(rows(1)))
        .part("other", file_part("{}"))
        .text("purpose", "batch");

    let file = app.upload_form(form).await.ok();

    assert_eq!(file["bytes"], rows(1).len());
}

#[tokio::test]
async fn of_two_purposes_the_first_counts() {
    let app = TestApp::start().await;
    let form = Form::new().text("purpose", "vision").part("file", file_part(rows(1))).text("purpose", "batch");

    let file = app.upload_form(form).await.ok();

    assert_eq!(file["purpose"], "vision");
}

#[tokio::test]
async fn a_second_file_is_refused_and_neither_is_kept() {
    let app = TestApp::start().await;
    let form = Form::new().part("file", file_part(rows(1))).part("file", file_part(rows(2))).text("purpose", "batch");

    let answer = app.upload_form(form).await;

    assert_refused(&answer, &error("The form has two parts named 'file'.", Some("file"), None));
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn a_form_without_a_purpose_is_refused() {
    let app = TestApp::start().await;

    let answer = app.upload_form(Form::new().part("file", file_part(rows(1)))).await;

    let message = "Missing required parameter: 'purpose'.";
    assert_refused(&answer, &error(message, Some("purpose"), Some("missing_required_parameter")));
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn a_form_without_a_file_is_refused() {
    let app = TestApp::start().await;

    let answer = app.upload_form(Form::new().text("purpose", "batch")).await;

    let message = "Missing required parameter: 'file'.";
    assert_refused(&answer, &error(message, Some("file"), Some("missing_required_parameter")));
}

#[tokio::test]
async fn a_purpose_that_nobody_can_upload_for_is_refused() {
    let app = TestApp::start().await;

    for purpose in ["batch_output", "Batch", "", "a\u{0}b"] {
        let form = Form::new().part("file", file_part(rows(1))).text("purpose", purpose);
        let answer = app.upload_form(form).await;

        assert_eq!(answer.status, 400, "{purpose:?}");
        assert_eq!(answer.json()["error"]["param"], "purpose", "{purpose:?}");
    }
    let answer = app.upload_form(Form::new().part("file", file_part("x")).text("purpose", "x")).await;
    let message = "'x' is not one of ['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals'] - 'purpose'";
    assert_refused(&answer, &error(message, Some("purpose"), None));
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn a_flat_expiry_is_refused_with_a_hint() {
    let app = TestApp::start().await;
    let flat = json!({ "anchor": "created_at", "seconds": 3600 }).to_string();
    let form = Form::new().text("purpose", "batch").text("expires_after", flat).part("file", file_part(rows(1)));

    let answer = app.upload_form(form).await;

    let message = "Invalid 'expires_after': send it as the parts 'expires_after[anchor]' and 'expires_after[seconds]'.";
    assert_refused(&answer, &error(message, Some("expires_after"), None));
}

#[tokio::test]
async fn the_members_of_an_expiry_are_named_with_brackets_or_dots() {
    let app = TestApp::start().await;

    for (anchor, seconds) in
        [("expires_after[anchor]", "expires_after[seconds]"), ("expires_after.anchor", "expires_after.seconds")]
    {
        let form = Form::new().text("purpose", "batch").text(anchor, "created_at").text(seconds, "3600");
        let file = app.upload_form(form.part("file", file_part(rows(1)))).await.ok();

        assert_eq!(file["expires_at"].as_i64(), file["created_at"].as_i64().map(|at| at + 3600), "{anchor}");
        let alone = Form::new().text("purpose", "batch").text(seconds, "3600").part("file", file_part(rows(1)));
        assert_eq!(app.upload_form(alone).await.json()["error"]["param"], "expires_after.anchor", "{seconds}");
    }
}

#[tokio::test]
async fn an_expiry_out_of_bounds_is_refused() {
    let app = TestApp::start().await;
    let cases = [
        (Some("created_at"), Some("3599"), Some("integer_below_min_value")),
        (Some("created_at"), Some("2592001"), Some("integer_above_max_value")),
        (Some("created_at"), Some("18446744073709551616"), Some("integer_above_max_value")),
        (Some("created_at"), Some("soon"), Some("invalid_type")),
        (Some("last_active_at"), Some("3600"), Some("invalid_value")),
        (None, Some("3600"), Some("missing_required_parameter")),
        (Some("created_at"), None, Some("missing_required_parameter")),
    ];

    for (anchor, seconds, code) in cases {
        let mut form = Form::new().part("file", file_part(rows(1))).text("purpose", "batch");
        let fields = [("expires_after[anchor]", anchor), ("expires_after[seconds]", seconds)];
        for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            form = form.text(name, value);
        }
        let answer = app.upload_form(form).await;

        assert_eq!(answer.status, 400, "{anchor:?} {seconds:?}");
        assert_eq!(answer.json()["error"]["code"].as_str(), code, "{anchor:?} {seconds:?}");
    }
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn files_for_other_purposes_are_kept_as_they_are_and_do_not_expire() {
    let app = TestApp::start().await;
    let form = Form::new().text("purpose", "user_data").part("file", Part::bytes(vec![0xff, 0, 1]).file_name("x.bin"));

    let file = app.upload_form(form).await.ok();

    assert_eq!(file["expires_at"], Value::Null);
    assert_eq!(app.content(file["id"].as_str().expect("an id")).await.bytes, [0xff, 0, 1]);
}

#[tokio::test]
async fn a_file_of_another_purpose_cannot_be_a_batch_input() {
    let app = TestApp::start().await;
    let form = Form::new().text("purpose", "vision").part("file", file_part(rows(1)));
    let file = app.upload_form(form).await.ok();

    let new = new_batch(file["id"].as_str().expect("an id"), "24h");
    let answer = app.post("/v1/batches", &new).await;

    let message = "Invalid file purpose: 'vision'. The input file of a batch must have purpose 'batch'.";
    assert_refused(&answer, &error(message, Some("input_file_id"), None));
}

#[tokio::test]
async fn a_text_file_is_refused_for_batches() {
    let app = TestApp::start().await;
    let form = Form::new().text("purpose", "batch").part("file", Part::bytes(rows(1).into_bytes()).file_name("a.TXT"));

    let answer = app.upload_form(form).await;

    assert_refused(&answer, &error("Invalid file format for Batch API. Must be .jsonl", None, None));
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn a_file_larger_than_the_limit_is_refused_and_not_kept() {
    let app = TestApp::with(&["--max-file-bytes", "100KiB", "--max-batch-bytes", "100KiB"]).await;
    let rest = (rows(1) + "\n").len();
    let padded = |size: usize| format!("{}\n{}", rows(1), " ".repeat(size - rest));

    let fits = app.try_upload(padded(100 << 10)).await;
    let too_large = app.try_upload(padded((100 << 10) + 1)).await;
    let far_too_large = app.try_upload(padded(150 << 10)).await;

    assert_eq!(fits.ok()["bytes"], 100 << 10);
    assert_refused(&too_large, &error("File is too large.", None, None));
    assert_refused(&far_too_large, &error("File is too large.", None, None));
    until("only the file that fits and its row index to be kept", || app.blobs().len() == 2).await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let body = form("b", &usual_parts(&vec![b'\n'; 20 << 20]));
    let mut request = upload_head(FORM, &format!("Content-Length: {}", body.len()));
    request.extend_from_slice(&body[..body.len() / 2]);

    let mut connection = TcpStream::connect(app.address).await.expect("the server listens");
    connection.write_all(&request).await.expect("the server reads");
    until("the upload to be written", || !app.blobs().is_empty()).await;
    drop(connection);

    until("what was written to be removed", || app.blobs().is_empty()).await;
    assert_eq!(app.get("/v1/files").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_form_that_ends_too_early_is_refused_and_leaves_nothing_behind() {
    let app = TestApp::start().await;
    let body = form("b", &usual_parts(rows(1).as_bytes()));

    let answer = upload(app.address, FORM, &body[..body.len() - 10]).await;

    assert_eq!(answer.status, 400, "{answer:?}");
    until("what was written to be removed", || app.blobs().is_empty()).await;
}

#[tokio::test]
async fn what_is_no_form_is_refused() {
    let app = TestApp::start().await;

    for content_type in ["application/json", "multipart/form-data", "text/plain; boundary=b"] {
        let answer = upload(app.address, content_type, &form("b", &usual_parts(b"{}"))).await;

        assert_eq!(answer.status, 400, "{answer:?}");
        let message = "The request must be a multipart/form-data form with the parts 'file' and 'purpose'.";
        assert_eq!(answer.json(), error(message, None, None), "{content_type}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let app = TestApp::start().await;
    let (large, long) = (vec![b'\n'; 32 << 20], vec![b'x'; 1 << 20]);
    let [purpose, file] = usual_parts(&large);
    let refused = [
        ("Content-Disposition: form-data; name=\"expires_after\"", &b"{}"[..]),
        ("Content-Disposition: form-data; name=\"purpose\"", &long),
        ("Content-Disposition: form-data; name=\"file\"", b"{}"),
    ];

    for part in refused {
        let body = form("b", &[part, file, purpose]);
        let answer = upload(app.address, FORM, &body).await;

        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn a_refusal_of_a_far_too_large_file_reaches_its_client() {
    let app = TestApp::with(&["--max-file-bytes", "16MiB", "--max-batch-bytes", "1MiB"]).await;

    let answer = app.try_upload(vec![b'\n'; 30 << 20]).await;

    assert_refused(&answer, &error("File is too large.", None, None));
}

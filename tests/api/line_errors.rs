//! What is wrong with lines: each is named by its number and code in `errors.data`, and nothing is run.

use std::fmt::Write as _;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::common::builders::{file, line, rows};
use crate::common::process::Process;
use crate::common::test_app::TestApp;

/// The code, the parameter and the line of each error.
fn places(errors: &[Value]) -> Vec<(&str, Option<&str>, Option<u64>)> {
    errors
        .iter()
        .map(|error| (error["code"].as_str().expect("a code"), error["param"].as_str(), error["line"].as_u64()))
        .collect()
}

#[tokio::test]
async fn each_bad_line_is_named_and_nothing_runs() {
    let app = TestApp::start().await;
    let good = |id: &str| line(id).to_string();
    let lines = [
        good("a"),
        String::new(),
        "{\"custom_id\"".to_owned(),
        r#"{"method":"POST","url":"/v1/chat/completions","body":{}}"#.to_owned(),
        good("a"),
        good("b").replace("POST", "GET"),
        good("c").replace("chat/completions", "audio/speech"),
        good("d").replace("chat/completions", "embeddings"),
        line("e").body(r#"{"messages":[]}"#).to_string(),
        line("f").body(r#"{"model":"m"}"#).to_string(),
        line("g").body(r#"{"model":"m","messages":[],"stream":true}"#).to_string(),
        line("h").body("[1]").to_string(),
        good("i"),
    ];

    let errors = app.validation_errors(lines.join("\n")).await;

    assert_eq!(
        places(&errors),
        [
            ("invalid_json_line", None, Some(3)),
            ("missing_required_parameter", Some("custom_id"), Some(4)),
            ("duplicate_custom_id", Some("custom_id"), Some(5)),
            ("invalid_method", Some("method"), Some(6)),
            ("url_not_found", Some("url"), Some(7)),
            ("invalid_url", Some("url"), Some(8)),
            ("invalid_request", Some("body.model"), Some(9)),
            ("invalid_request", Some("body.messages"), Some(10)),
            ("streaming_unsupported", Some("body.stream"), Some(11)),
            ("invalid_type", Some("body"), Some(12)),
        ]
    );
    assert_eq!(app.upstream.calls().len(), 0);
}

#[tokio::test]
async fn a_failed_batch_has_no_files_and_no_counts() {
    let app = TestApp::start().await;

    let id = app.submit("{}\n").await;
    let batch = app.wait_for(&id, "failed").await;

    assert_eq!(batch["request_counts"], json!({ "total": 0, "completed": 0, "failed": 0 }));
    assert_eq!((&batch["output_file_id"], &batch["error_file_id"]), (&Value::Null, &Value::Null));
    assert_eq!(batch["errors"]["object"], "list");
    assert!(batch["failed_at"].is_i64() && batch["in_progress_at"].is_null(), "{batch}");
}

#[tokio::test]
async fn json_that_is_no_object_is_an_error_of_its_line() {
    let app = TestApp::start().await;

    let errors = app.validation_errors("[1]\n\"x\"\nnull\n7\ntrue\n1.5\n").await;

    let got = ["an array", "a string", "null", "an integer", "a boolean", "a decimal"];
    let messages = got.map(|got| format!("Invalid type for this line: expected an object, but got {got} instead."));
    assert_eq!(errors.iter().map(|error| &error["message"]).collect::<Vec<_>>(), messages.iter().collect::<Vec<_>>());
    assert!(errors.iter().all(|error| error["code"] == "invalid_type"), "{errors:?}");
}

#[tokio::test]
async fn a_custom_id_has_to_be_a_text_that_is_not_empty() {
    let app = TestApp::start().await;
    let with_id = |id: &str| line("x").to_string().replacen("\"x\"", id, 1);

    let errors = app.validation_errors(file(["7", "\"\"", "null", "[]", "1.5"].map(with_id))).await;

    assert_eq!(
        places(&errors),
        [
            ("invalid_type", Some("custom_id"), Some(1)),
            ("invalid_value", Some("custom_id"), Some(2)),
            ("missing_required_parameter", Some("custom_id"), Some(3)),
            ("invalid_type", Some("custom_id"), Some(4)),
            ("invalid_type", Some("custom_id"), Some(5)),
        ]
    );
    let message = "Invalid type for 'custom_id': expected a string, but got an integer instead.";
    assert_eq!(errors[0]["message"], message);
}

#[tokio::test]
async fn a_nul_byte_makes_a_line_invalid_json() {
    let app = TestApp::start().await;

    let errors = app.validation_errors(format!("{}\0\n{}", rows(1), line("a\0b"))).await;

    assert_eq!(places(&errors), [("invalid_json_line", None, Some(2)), ("invalid_json_line", None, Some(3))]);
}

#[tokio::test]
async fn a_key_that_stands_twice_is_an_error_of_its_line() {
    let app = TestApp::start().await;

    let errors = app.validation_errors(line("a").body(r#"{"model":"m","model":"n","messages":[]}"#).to_string()).await;

    assert_eq!(places(&errors), [("invalid_request", None, Some(1))]);
}

#[tokio::test]
async fn a_thousand_errors_are_listed_and_the_others_counted() {
    let app = TestApp::start().await;
    let mut input = rows(1);
    for _ in 0..1500 {
        writeln!(input, "{{}}").expect("a String takes all");
    }

    let errors = app.validation_errors(input).await;

    assert_eq!(errors.len(), 1001);
    assert_eq!(errors[999]["line"], 1001);
    let message = "500 more errors were found; only the first 1000 are listed.";
    assert_eq!(errors[1000], json!({ "code": "too_many_errors", "message": message, "param": null, "line": null }));
}

#[tokio::test]
async fn errors_of_several_kinds_are_cut_at_a_thousand_by_line() {
    let app = TestApp::start().await;
    let pair = |number: usize| format!("{}\n{{}}\n", line(&format!("row-{number}")).url("/v1/embeddings"));

    let errors = app.validation_errors((0..700).map(pair).collect::<String>()).await;

    let lines: Vec<_> = errors[..1000].iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines, (1..=1000).map(Some).collect::<Vec<_>>());
    assert_eq!(errors[1000]["message"], "400 more errors were found; only the first 1000 are listed.");
}

#[tokio::test]
async fn more_rows_than_a_batch_may_have_fail_it() {
    let app = TestApp::with(&["--max-batch-rows", "3"]).await;

    let errors = app.validation_errors(rows(4)).await;

    assert_eq!(places(&errors), [("too_many_tasks", None, None)]);
    assert_eq!(app.run(rows(3)).await.output.len(), 3);
}

#[tokio::test]
async fn an_input_larger_than_a_batch_may_have_fails_it() {
    let app = TestApp::with(&["--max-batch-bytes", "200B"]).await;

    let errors = app.validation_errors(rows(2)).await;

    let message =
        "The batch input file is larger than the 200 maximum for the m model. Please try again with a smaller batch.";
    assert_eq!(errors, [json!({ "code": "invalid_request", "message": message, "param": null, "line": null })]);
}

#[tokio::test]
async fn a_line_of_200_mb_is_an_error_of_its_line_and_is_not_held_in_memory() {
    const CHUNK: usize = 1 << 20;
    let upstream = Process::simulate(&[]).await;
    let upstream_url = format!("{}/v1", upstream.base_url);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("a printable path");
    let server = Process::serve(&["--upstream", &upstream_url, "--data-dir", data]).await;
    let client = server.client();
    let before = server.peak_memory();

    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let long = stream::repeat(chunk).take(200_000_000 / CHUNK).map(Ok::<_, std::io::Error>);
    let rest = stream::iter([Ok(Bytes::from("\n")), Ok(Bytes::from(rows(1)))]);
    let part = Part::stream(Body::wrap_stream(long.chain(rest))).file_name("input.jsonl");
    let file = client.upload_form(Form::new().text("purpose", "batch").part("file", part)).await.ok();
    let batch = client.create_batch(file["id"].as_str().expect("an id")).await;
    let batch = client.wait_for(&batch, "failed").await;

    let message =
        "This line is longer than the 16777216 bytes one request could have at its upload (--max-line-bytes).";
    let expected = json!([{ "code": "invalid_request", "message": message, "param": null, "line": 1 }]);
    assert_eq!(batch["errors"]["data"], expected);
    let grown = server.peak_memory() - before;
    assert!(grown < 100_000, "the peak memory grew by {grown} kB");
}

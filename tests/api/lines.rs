//! Batch input files in every form that means the same.

use serde_json::json;

use crate::common::builders::{file, line, rows};
use crate::common::client::error;
use crate::common::test_app::TestApp;

/// Runs a file, and says which rows were answered.
async fn answered(input: impl Into<Vec<u8>>) -> Vec<String> {
    let app = TestApp::start().await;
    let results = app.run(input).await;
    assert_eq!(results.errors, [] as [serde_json::Value; 0]);
    results.output_ids().into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn lines_may_end_in_crlf_which_is_not_sent() {
    let app = TestApp::start().await;

    let results = app.run(rows(2).replace('\n', "\r\n")).await;

    assert_eq!(results.output_ids(), ["row-0", "row-1"]);
    let calls = app.upstream.calls();
    assert!(calls.iter().all(|call| call.text().ends_with('}')), "{calls:?}");
}

#[tokio::test]
async fn blank_lines_are_no_rows() {
    let input = format!("\n  \n{}\r\n\t\n{}\n\n", line("a"), line("b"));

    assert_eq!(answered(input).await, ["a", "b"]);
}

#[tokio::test]
async fn the_last_line_needs_no_line_end() {
    assert_eq!(answered(rows(2).trim_end()).await, ["row-0", "row-1"]);
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_the_first_line() {
    assert_eq!(answered(format!("\u{feff}{}", rows(2))).await, ["row-0", "row-1"]);
}

#[tokio::test]
async fn white_space_around_a_row_is_not_sent() {
    let app = TestApp::start().await;

    app.run(format!("  \t{} \n", line("a").body(r#" { "model":"m" , "messages":[] } "#))).await;

    assert_eq!(app.upstream.calls()[0].text(), r#"{ "model":"m" , "messages":[] }"#);
}

#[tokio::test]
async fn a_custom_id_may_be_any_text() {
    let ids = [r"a\u0000b", r#"\"quoted\"\\"#, "emoji 😀", r"\ud83d\ude00", "\u{2028}", "x".repeat(5000).as_str()]
        .map(str::to_owned);
    let app = TestApp::start().await;

    let results = app.run(file(ids.iter().map(|id| line(id).body(r#"{"model":"m","messages":[]}"#)))).await;

    let mut expected: Vec<String> =
        ids.iter().map(|id| serde_json::from_str(&format!("\"{id}\"")).expect("JSON")).collect();
    expected.sort_unstable();
    assert_eq!(results.output_ids(), expected);
}

#[tokio::test]
async fn members_that_mean_nothing_are_ignored() {
    let row = concat!(
        r#"{"body":{"messages":[],"model":"m"},"extra":{"custom_id":"x"},"#,
        r#""url":"/v1/chat/completions","method":"POST","custom_id":"a"}"#,
    );

    assert_eq!(answered(row).await, ["a"]);
}

#[tokio::test]
async fn a_file_that_is_not_utf8_is_refused() {
    let app = TestApp::start().await;
    let input = [rows(1).as_bytes(), b"{\"custom_id\":\"caf\xe9\"}\n"].concat();

    let answer = app.try_upload(input).await;

    assert_eq!(answer.status, 400);
    assert_eq!(answer.json(), error("Invalid file for Batch API. Must be utf-8 encoded", None, None));
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn a_file_whose_first_line_is_not_json_is_refused() {
    let app = TestApp::start().await;

    for input in ["custom_id,method\na,POST\n", "\0\0\0\0", "{\"custom_id\":\n"] {
        let answer = app.try_upload(input).await;

        assert_eq!(answer.status, 400, "{input:?}");
        assert_eq!(answer.json(), error("Invalid file format for Batch API. Must be .jsonl", None, None), "{input:?}");
    }
    assert_eq!(app.blobs().len(), 0);
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    let app = TestApp::start().await;

    let answer = app.try_upload("").await;

    assert_eq!(answer.status, 400);
    assert_eq!(answer.json(), error("Invalid file format for Batch API. The file is empty.", None, None));
}

#[tokio::test]
async fn a_file_of_blank_lines_fails_its_batch() {
    let app = TestApp::start().await;

    let errors = app.validation_errors("\n\r\n \n").await;

    let message = "The batch input file has no requests.";
    assert_eq!(errors, [json!({ "code": "empty_file", "message": message, "param": null, "line": null })]);
}

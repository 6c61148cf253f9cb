//! `requests` of `POST /v1/batches`: batches without a file.

use std::fmt::Write as _;

use reqwest::Method;
use serde_json::{Value, json};

use crate::common::builders::{line, rows};
use crate::common::client::{Answer, error, send, text};
use crate::common::test_app::TestApp;

const PARAMETERS: &str = r#""endpoint":"/v1/chat/completions","completion_window":"24h""#;

async fn create(app: &TestApp, body: impl Into<String>) -> Answer {
    let request = app.request(Method::POST, "/v1/batches").header("content-type", "application/json");
    send(request.body(body.into())).await
}

/// The body of a batch of these rows.
fn of_rows(rows: &str) -> String {
    format!(r#"{{"requests":[{rows}],{PARAMETERS}}}"#)
}

async fn input(app: &TestApp, batch: &Value) -> String {
    app.content(text(&batch["input_file_id"])).await.text()
}

#[tokio::test]
async fn full_rows_run_as_they_are_wherever_they_stand_in_the_body() {
    let app = TestApp::start().await;
    let input_file = rows(30);
    let rows = input_file.trim_end().replace('\n', ",\n\t");
    let bodies = [of_rows(&rows), format!(r#"{{{PARAMETERS},"requests":[ {rows} ],"metadata":{{"requests":"[1]"}}}}"#)];

    for body in bodies {
        let batch = create(&app, body).await.ok();

        assert_eq!(input(&app, &batch).await, input_file);
        let file = app.get(&format!("/v1/files/{}", text(&batch["input_file_id"]))).await.ok();
        assert_eq!((&file["purpose"], &file["filename"]), (&json!("batch"), &json!("requests.jsonl")));
        let batch = app.wait_for(text(&batch["id"]), "completed").await;
        assert!(app.verify(&input_file, &batch).await.holds());
    }
    // Of each batch the bytes and the row index of its input, and its output: the spooled rows are gone.
    assert_eq!(app.blobs().len(), 6);
}

#[tokio::test]
async fn rows_may_leave_out_what_the_batch_says() {
    let app = TestApp::with(&["--role", "api"]).await;
    let rows =
        r#"{"body":{"messages":[],"n":12345678901234567890.10}}, {"custom_id":"b","body":{"model":"x","messages":[]}}"#;
    let body = format!(r#"{{"requests":[{rows}],"model":"m",{PARAMETERS}}}"#);

    let batch = create(&app, body).await.ok();

    let expected = concat!(
        r#"{"custom_id":"request-1","method":"POST","url":"/v1/chat/completions","#,
        r#""body":{"model":"m","messages":[],"n":12345678901234567890.10}}"#,
        "\n",
        r#"{"method":"POST","url":"/v1/chat/completions","custom_id":"b","body":{"model":"x","messages":[]}}"#,
        "\n"
    );
    assert_eq!(input(&app, &batch).await, expected);
}

/// Rows, the beginning of their refusal, its parameter and its code.
type WrongRows = (String, &'static str, Option<&'static str>, &'static str);

fn wrong_rows() -> [WrongRows; 8] {
    let row = |id: &str| line(id).to_string();
    let good = row("a");
    [
        (
            format!("{good},{}", r#"{"custom_id":"b"}"#),
            "Invalid 'requests[1]': Missing required parameter: 'body'.",
            Some("requests[1].body"),
            "missing_required_parameter",
        ),
        (
            format!("{good},{}", r#"{"body":{"messages":[]}}"#),
            "Invalid 'requests[1]': ",
            Some("requests[1].body.model"),
            "invalid_request",
        ),
        (
            format!("{good},7"),
            "Invalid 'requests[1]': Invalid type for this request: expected an object, but got an \
            integer instead.",
            Some("requests[1]"),
            "invalid_type",
        ),
        (format!("{good},{good}"), "Invalid 'requests[1]': ", Some("requests[1].custom_id"), "duplicate_custom_id"),
        (
            r#"{"body":{}x}"#.into(),
            "Invalid 'requests[0]': This request is not parseable as valid JSON.",
            Some("requests[0]"),
            "invalid_request",
        ),
        (
            line("b").url("/v1/embeddings").to_string(),
            "Invalid 'requests[0]': The URL provided for this request does \
            not match the batch endpoint.",
            Some("requests[0].url"),
            "invalid_url",
        ),
        (
            [row("a"), row("b"), row("c"), row("d")].join(","),
            "The batch input file has 4 requests",
            Some("requests"),
            "too_many_tasks",
        ),
        (
            format!("{},{}", r#"{"body":1}"#, r#"{"body":2}"#),
            "Invalid 'requests[0]': Invalid type for 'body': expected \
            an object, but got an integer instead. 1 more errors were found.",
            Some("requests[0].body"),
            "invalid_type",
        ),
    ]
}

#[tokio::test]
async fn a_wrong_row_is_named_and_nothing_is_left() {
    let app = TestApp::with(&["--role", "api", "--max-line-bytes", "2KiB", "--max-batch-rows", "3"]).await;

    for (rows, message, param, code) in wrong_rows() {
        let answer = create(&app, of_rows(&rows)).await;

        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["param"].as_str(), &error["code"]), (400, param, &json!(code)), "{error}");
        assert!(text(&error["message"]).starts_with(message), "{error}");
    }
    assert!(app.blobs().is_empty(), "{:?}", app.blobs());
    assert_eq!(app.get("/v1/files").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_row_that_is_too_long_is_named_before_it_has_come() {
    let app = TestApp::with(&["--role", "api", "--max-line-bytes", "2KiB"]).await;
    let large = format!(r#"{{"body":{{"model":"m","messages":["{}"]}}}}"#, "x".repeat(3000));

    let long = create(&app, of_rows(&format!("{},{large}", line("a")))).await;

    let message = "We could not parse the JSON body of your request. 'requests[1]' is longer than the 2048 bytes that \
                   one request may have (--max-line-bytes).";
    assert_eq!((long.status, long.json()), (400, error(message, Some("requests[1]"), None)));
    assert!(app.blobs().is_empty(), "{:?}", app.blobs());
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused() {
    let app = TestApp::with(&["--role", "api", "--max-file-bytes", "2MiB", "--max-batch-bytes", "2MiB"]).await;
    let good = line("a").to_string();
    let many = rows(30_000).trim_end().replace('\n', ",");
    let cases = [
        (format!(r#"{{"requests":[],{PARAMETERS}}}"#), Some("requests")),
        (format!(r#"{{"requests":"x",{PARAMETERS}}}"#), Some("requests")),
        (format!(r#"{{"requests":[{good}],"input_file_id":"file-x",{PARAMETERS}}}"#), Some("input_file_id")),
        (format!(r#"{{"requests":[{good}],"retry_of":"batch_x",{PARAMETERS}}}"#), Some("retry_of")),
        (format!(r#"{{"requests":[{good}],"model":7,{PARAMETERS}}}"#), Some("model")),
        (format!(r#"{{"requests":[{good}],"requests":[{good}],{PARAMETERS}}}"#), Some("requests")),
        (format!(r#"{{"requests":[{good},],{PARAMETERS}}}"#), Some("requests[1]")),
        (format!(r#"{{"requests":[{good}],{PARAMETERS}"#), None),
        (format!(r#"{{"requests":[{good}"#), None),
        (format!(r#"{{"requests":[{good}]}}"#), Some("endpoint")),
        (of_rows(&many), Some("requests")),
    ];

    for (body, param) in cases {
        let answer = create(&app, body.clone()).await;
        let shown: String = body.chars().take(300).collect();
        assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, param), "{shown} {answer:?}");
    }
    assert!(app.blobs().is_empty(), "{:?}", app.blobs());
}

#[tokio::test]
async fn fifty_thousand_rows_make_one_batch() {
    let app = TestApp::with(&["--role", "api"]).await;
    let mut rows = String::new();
    for number in 0..50_000 {
        let comma = if number > 0 { "," } else { "" };
        write!(rows, r#"{comma}{{"body":{{"messages":[{number}]}}}}"#).expect("a String takes all");
    }

    let batch = create(&app, format!(r#"{{"model":"m","requests":[{rows}],{PARAMETERS}}}"#)).await.ok();

    let input = input(&app, &batch).await;
    assert_eq!(input.lines().count(), 50_000);
    assert!(input.lines().last().is_some_and(|row| row.contains(r#""custom_id":"request-50000""#)));
}

#[tokio::test]
async fn a_key_makes_one_batch_of_the_same_rows() {
    let app = TestApp::with(&["--role", "api"]).await;
    let with_key = async |body: String| {
        let request = app.request(Method::POST, "/v1/batches").header("Idempotency-Key", "once");
        send(request.header("content-type", "application/json").body(body)).await
    };
    let (one, other) = (line("a").to_string(), line("b").to_string());
    let spaced = format!("{{ {PARAMETERS}, \"requests\": [\n{one}\n] }}");

    let at_once = futures::future::join_all((0..5).map(|_| with_key(of_rows(&one)))).await;
    let refused = [with_key(of_rows(&other)).await, with_key(of_rows(&format!("{one},{other}"))).await];

    let first = at_once[0].ok();
    assert!(at_once.iter().chain([&with_key(spaced).await]).all(|answer| answer.ok() == first), "{at_once:?}");
    for answer in refused {
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (409, &json!("idempotency_key_reused")), "{error}");
    }
    let of_a_file = json!({ "input_file_id": first["input_file_id"], "endpoint": "/v1/chat/completions",
        "completion_window": "24h" });
    assert_eq!(with_key(of_a_file.to_string()).await.status, 409);
    assert_eq!(app.blobs().len(), 2, "one input file with its row index");
}

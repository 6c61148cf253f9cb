//! What is sent upstream, and what becomes of an answer that comes.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::json;

use crate::common::builders::{file, line, rows};
use crate::common::client::{new_batch, text};
use crate::common::eventually::eventually;
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::process::Process;
use crate::common::test_app::TestApp;
use crate::upstreams::warnings;

const ODD_BODY: &str = concat!(
    r#"{ "z":1.10,  "model" : "m","n":12345678901234567890,"e":1E+2,"f":-0.0,"a":{"b":[ ]},"#,
    r#""messages":[{"role":"user","content":"\u00e9\ud83d\ude00 é / \/ \n"}],"u":"\u2028" }"#
);

#[tokio::test]
async fn a_body_arrives_byte_for_byte_as_it_was_uploaded() {
    let app = TestApp::start().await;

    app.run(line("a").body(ODD_BODY).to_string()).await;

    assert_eq!(app.upstream.calls()[0].text(), ODD_BODY);
}

#[tokio::test]
async fn a_call_says_which_row_it_is_for() {
    let app = TestApp::start().await;

    let id = app.submit(line("größe 100%").to_string()).await;
    app.wait_for(&id, "completed").await;

    let call = &app.upstream.calls()[0];
    assert_eq!(call.header("x-batchwright-batch-id"), id);
    assert_eq!(call.header("x-batchwright-custom-id"), "gr%C3%B6%C3%9Fe 100%25");
    let traceparent = format!("00-{}-0000000000000001-00", id.trim_start_matches("batch_"));
    assert_eq!(call.header("traceparent"), traceparent);
}

/// The headers of the call for a batch whose metadata has this for `team`.
async fn headers_of(app: &TestApp, team: Option<&str>) -> HeaderMap {
    let mut new = new_batch(&app.upload(rows(1)).await, "24h");
    new["metadata"] = json!({ "Cost.Center": "7", "secret": "x" });
    if let Some(team) = team {
        new["metadata"]["team"] = team.into();
    }
    let batch = app.post("/v1/batches", &new).await.ok();
    app.wait_for(text(&batch["id"]), "completed").await;
    app.upstream.calls().last().expect("a call").headers.clone()
}

#[tokio::test]
async fn a_call_says_what_the_settings_choose_of_its_batchs_metadata() {
    let long = "ä".repeat(200);
    // What the metadata has for `team`, and the header.
    let cases = [
        (Some("blue"), Some("blue")),
        (Some("größe 100%\r\nx: y"), Some("gr%C3%B6%C3%9Fe 100%25%0D%0Ax: y")),
        (Some(""), Some("")),
        (Some(long.as_str()), None),
        (None, None),
    ];
    for stream in ["never", "always"] {
        let app = TestApp::with(&["--metadata-headers", "team,Cost.Center", "--stream", stream]).await;
        for (team, expected) in cases {
            let headers = headers_of(&app, team).await;

            let told = |key: &str| headers.get(format!("x-batchwright-metadata-{key}")).map(HeaderValue::as_bytes);
            assert_eq!(told("team"), expected.map(str::as_bytes), "{team:?}");
            assert_eq!(told("cost.center"), Some(b"7".as_slice()));
            assert_eq!(told("secret"), None);
        }
    }
}

#[tokio::test]
async fn every_call_of_a_response_says_the_metadata() {
    let flags = ["--metadata-headers", "team", "--ensure-schema", "--upstream-responses", "chat"];
    let app = TestApp::with(&flags).await;
    app.upstream.reply(|call| Reply::chat(if call.text().contains("assistant") { r#"{"n":1}"# } else { "no" }));
    let format = r#"{"type":"json_schema","name":"n","schema":{"type":"object","required":["n"]}}"#;
    let body = format!(r#"{{"model":"m","input":"Hi","text":{{"format":{format}}}}}"#);

    let mut new = new_batch(&app.upload(line("a").url("/v1/responses").body(&body).to_string()).await, "24h");
    new["endpoint"] = "/v1/responses".into();
    new["metadata"] = json!({ "team": "blue" });
    let batch = app.post("/v1/batches", &new).await.ok();
    app.wait_for(text(&batch["id"]), "completed").await;

    let calls = app.upstream.calls();
    let told: Vec<&str> = calls.iter().map(|call| call.header("x-batchwright-metadata-team")).collect();
    assert_eq!(told, ["blue"; 2]);
}

#[tokio::test]
async fn each_endpoint_has_its_path_below_the_upstream() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::new(200, r#"{"output":[],"data":[{}],"choices":[{}]}"#));

    for endpoint in ["/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations", "/v1/images/generations"]
    {
        let input = line("a").url(endpoint).body(r#"{"model":"m"}"#).to_string();
        let mut new = new_batch(&app.upload(input).await, "24h");
        new["endpoint"] = endpoint.into();
        let batch = app.post("/v1/batches", &new).await.ok();
        app.wait_for(text(&batch["id"]), "completed").await;

        assert_eq!(app.upstream.calls().last().expect("a call").path, endpoint);
    }
}

#[tokio::test]
async fn an_answer_is_embedded_byte_for_byte() {
    let app = TestApp::start().await;
    let answer = r#"{"b":1.10,"n":12345678901234567890, "s":"\u00e9\n","choices":[ {}]}"#;
    app.upstream.reply(move |_| Reply::new(200, answer).header("x-request-id", "upstream-1"));

    let id = app.submit(rows(1)).await;
    let batch = app.wait_for(&id, "completed").await;

    let line = app.content(text(&batch["output_file_id"])).await.text();
    let response =
        format!(r#""response":{{"status_code":200,"request_id":"upstream-1","body":{answer}}},"error":null}}"#);
    assert!(line.starts_with(r#"{"id":"batch_req_"#), "{line}");
    assert!(line.ends_with(&format!(r#","custom_id":"row-0",{response}{}"#, "\n")), "{line}");
}

#[tokio::test]
async fn a_pretty_printed_answer_becomes_one_line() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::new(200, "{\r\n  \"choices\": [\n    {},\n\n\t1.10\n  ]\n}\r\n"));

    let id = app.submit(rows(1)).await;
    let batch = app.wait_for(&id, "completed").await;

    let text = app.content(text(&batch["output_file_id"])).await.text();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(r#""body":{"choices": [{},1.10]}},"error":null}"#), "{text}");
}

#[tokio::test]
async fn rows_wait_while_nothing_but_a_page_answers() {
    let app = TestApp::start().await;
    app.upstream.reply(|_| Reply::new(200, "<html>It works!</html>"));

    let batch = app.submit(rows(300)).await;
    eventually("the page to be known", async || {
        warnings(&app).await.iter().any(|warning| warning.contains("cannot be read")).then_some(())
    })
    .await;
    app.upstream.reply(|_| Reply::ok());

    app.wait_for_completed(&batch, 300).await;
}

#[tokio::test]
async fn the_key_is_sent_as_a_bearer_token() {
    let app = TestApp::with(&["--upstream-key", "secret"]).await;

    app.run(rows(1)).await;

    assert_eq!(app.upstream.calls()[0].header("authorization"), "Bearer secret");
}

#[tokio::test]
async fn without_a_key_no_credentials_are_sent() {
    let app = TestApp::start().await;

    app.run(rows(1)).await;

    assert_eq!(app.upstream.calls()[0].header("authorization"), "");
    assert_eq!(app.upstream.calls()[0].header("content-type"), "application/json");
}

#[tokio::test]
async fn no_more_calls_run_at_once_than_allowed() {
    let app = TestApp::with(&["--max-concurrency", "4"]).await;
    app.upstream.reply(|call| {
        let reply = if call.attempt == 0 && call.is_of("row-7") { Reply::error(500) } else { Reply::ok() };
        reply.after(Duration::from_millis(5))
    });

    let results = app.run(rows(100)).await;

    assert_eq!(results.output.len(), 100);
    assert_eq!(app.upstream.peak(), 4);
}

#[tokio::test]
async fn a_row_of_many_megabytes_is_run() {
    let app = TestApp::start().await;
    let body = format!(r#"{{"model":"m","messages":["{}"]}}"#, "x".repeat(15 << 20));

    let results = app.run(file([line("a").body(&body), line("b")])).await;

    assert_eq!(results.output_ids(), ["a", "b"]);
    assert!(app.upstream.calls().iter().any(|call| call.text() == body));
}

#[tokio::test]
async fn many_large_answers_at_once_have_a_common_bound() {
    const MIB: usize = 1 << 20;
    let upstream = FakeUpstream::start();
    let answer = bytes::Bytes::from(format!(r#"{{"choices":[{{}}],"x":"{}"}}"#, "x".repeat(40 * MIB)));
    upstream.reply(move |_| Reply::new(200, answer.clone()));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().to_str().expect("a printable path");
    let url = format!("http://{}/v1", upstream.address);
    let server = Process::serve(&["--upstream", &url, "--data-dir", data]).await;

    let client = server.client();
    let batch = client.submit(rows(32)).await;
    client.wait_for_completed(&batch, 32).await;

    // 512 MiB for answers, 64 MiB for lines and as much for the part that is written, and what the allocator keeps.
    let peak = server.peak_memory() / 1024;
    assert!(peak < 1000, "the peak memory was {peak} MiB");
}

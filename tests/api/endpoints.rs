//! The endpoints that rows may be for, by all names that clients have for them.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use batchwright::simulator::{self, Simulator, SimulatorArgs};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::builders::{file, line};
use crate::common::client::{error, new_batch, text};
use crate::common::fake_upstream::{FakeUpstream, Reply};
use crate::common::test_app::{Stopped, TestApp};

/// A simulated server, which has every endpoint.
async fn simulated() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the listener is bound");
    let args = SimulatorArgs { latency: "0ms".parse().expect("a latency"), ..SimulatorArgs::default() };
    tokio::spawn(simulator::serve(listener, Simulator::new(args), std::future::pending()));
    address
}

async fn in_front_of(address: SocketAddr) -> TestApp {
    let table = format!("[[upstreams]]\nname = 'simulated'\nurl = 'http://{address}/v1'\nmodels = '*'\n");
    Stopped::new(FakeUpstream::down()).start_with_upstreams(&table, &[]).await
}

/// Rows for endpoints of other APIs than OpenAI's: a url, a body, and the member that an answer has.
fn others() -> Vec<(&'static str, Value, &'static str)> {
    let message = json!({ "role": "user", "content": "Hi" });
    vec![
        ("/v1/messages", json!({ "model": "m", "max_tokens": 9, "messages": [message] }), "content"),
        ("/v1/score", json!({ "model": "m", "text_1": "a", "text_2": ["b", "c"] }), "data"),
        ("/v1/rerank", json!({ "model": "m", "query": "a", "documents": ["b", "c"] }), "results"),
        ("/v2/rerank", json!({ "model": "m", "query": "a", "documents": ["b", "c"] }), "results"),
        ("/v1/pooling", json!({ "model": "m", "input": ["a", "b"] }), "data"),
        ("/v1/classify", json!({ "input": ["a", "b"] }), "data"),
        ("/classify", json!({ "input": ["a", "b"] }), "data"),
    ]
}

async fn create_for(app: &TestApp, input: &str, endpoint: &str) -> Value {
    let file_id = app.upload(input).await;
    let mut new = new_batch(&file_id, "24h");
    new["endpoint"] = endpoint.into();
    app.post("/v1/batches", &new).await.ok()
}

#[tokio::test]
async fn rows_of_other_apis_are_answered_and_counted() {
    let app = in_front_of(simulated().await).await;
    for (url, body, member) in others() {
        let rows = file((0..3).map(|number| line(&format!("row-{number}")).url(url).body(&body.to_string())));
        let created = create_for(&app, &rows, url).await;

        let batch = app.wait_for(text(&created["id"]), "completed").await;

        assert_eq!(batch["endpoint"], url);
        assert_eq!(batch["request_counts"], json!({ "total": 3, "completed": 3, "failed": 0 }), "{url}");
        assert!(batch["usage"]["input_tokens"].as_u64().expect("a number") > 0, "{url}: {}", batch["usage"]);
        let results = app.results(&batch).await;
        assert!(results.output.iter().all(|line| line["response"]["body"][member].is_array()), "{url}");
        assert!(app.verify(&rows, &batch).await.holds());
    }
}

#[tokio::test]
async fn a_batch_for_any_endpoint_has_rows_for_each() {
    let app = in_front_of(simulated().await).await;
    let (urls, bodies, _): (Vec<_>, Vec<_>, Vec<_>) = others().into_iter().collect();
    let mut rows: Vec<_> =
        urls.iter().zip(&bodies).map(|(url, body)| line(url).url(url).body(&body.to_string())).collect();
    rows.push(line("chat"));
    rows.push(line("response").url("/v1/responses").body(r#"{"model":"m","input":"Hi"}"#));
    rows.push(line("embedding").url("/v1/embeddings").body(r#"{"model":"m","input":"Hi"}"#));
    let rows = file(rows);

    let created = create_for(&app, &rows, "*").await;
    let batch = app.wait_for(text(&created["id"]), "completed").await;

    assert_eq!(batch["endpoint"], "*");
    assert_eq!(batch["request_counts"], json!({ "total": 10, "completed": 10, "failed": 0 }));
    let results = app.results(&batch).await;
    let object = |id: &str| {
        let line = results.output.iter().find(|line| line["custom_id"] == id).expect("a line");
        line["response"]["body"]["object"].clone()
    };
    assert_eq!(["chat", "response", "/v1/score"].map(object), ["chat.completion", "response", "list"]);
    assert!(app.verify(&rows, &batch).await.holds());
}

#[tokio::test]
async fn rows_for_another_endpoint_than_the_batchs_are_refused() {
    let app = TestApp::start().await;
    let rows = file([line("a"), line("b").url("/v1/embeddings").body(r#"{"model":"m","input":"Hi"}"#)]);

    let created = create_for(&app, &rows, "/v1/chat/completions").await;
    let batch = app.wait_for(text(&created["id"]), "failed").await;

    let errors = &batch["errors"]["data"];
    assert_eq!((&errors[0]["code"], &errors[0]["line"]), (&json!("invalid_url"), &json!(2)));
}

#[tokio::test]
async fn a_path_without_a_version_means_the_first() {
    let app = TestApp::start().await;
    // The endpoint of a batch, and the url of its row.
    let cases = [
        ("/chat/completions", "/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions", "/chat/completions"),
    ];
    for (endpoint, url) in cases {
        let created = create_for(&app, &line("a").url(url).to_string(), endpoint).await;

        let batch = app.wait_for(text(&created["id"]), "completed").await;

        assert_eq!(batch["endpoint"], "/v1/chat/completions");
        assert_eq!(batch["request_counts"]["completed"], 1);
    }
    assert!(app.upstream.calls().iter().all(|call| call.path == "/v1/chat/completions"));
}

#[tokio::test]
async fn each_url_has_its_path_at_the_server() {
    let app = TestApp::with(&["--extra-endpoints", "/v1/foo,/bar/baz"]).await;
    app.upstream.reply(|_| Reply::new(200, r#"{"content":[],"data":[1],"results":[1],"foo":1}"#));
    let cases = [
        ("/v1/messages", "/v1/messages"),
        ("/score", "/v1/score"),
        ("/rerank", "/v1/rerank"),
        ("/v2/rerank", "/v2/rerank"),
        ("/v1/pooling", "/pooling"),
        ("/pooling", "/pooling"),
        ("/classify", "/classify"),
        ("/v1/classify", "/v1/classify"),
        ("/v1/foo", "/v1/foo"),
        ("/bar/baz", "/bar/baz"),
    ];
    let rows = cases.map(|(url, _)| line(url).url(url));
    let created = create_for(&app, &file(rows), "*").await;

    let batch = app.wait_for(text(&created["id"]), "completed").await;

    assert_eq!(batch["request_counts"]["failed"], 0);
    let calls = app.upstream.calls();
    for (url, path) in cases {
        let call = calls.iter().find(|call| call.is_of(url)).expect("a call");
        assert_eq!(call.path, path, "{url}");
        let version = if path == "/v1/messages" { "2023-06-01" } else { "" };
        assert_eq!(call.header("anthropic-version"), version);
    }
}

#[tokio::test]
async fn the_settings_widen_and_narrow_the_endpoints() {
    let app = TestApp::with(&["--extra-endpoints", "/v1/foo", "--only-endpoints", "/v1/chat/completions"]).await;
    app.upstream.reply(|_| Reply::new(200, r#"{"foo":1}"#));

    let created = create_for(&app, &line("a").url("/v1/foo").to_string(), "/v1/foo").await;
    let batch = app.wait_for(text(&created["id"]), "completed").await;
    assert_eq!((&batch["endpoint"], &batch["request_counts"]["completed"]), (&json!("/v1/foo"), &json!(1)));

    let mut new = new_batch(&app.upload(line("a").to_string()).await, "24h");
    new["endpoint"] = "/v1/embeddings".into();
    let refused = app.post("/v1/batches", &new).await;
    let message = "Invalid value: '/v1/embeddings'. Supported values are: '/v1/chat/completions' and '/v1/foo'.";
    assert_eq!((refused.status, refused.json()), (400, error(message, Some("endpoint"), Some("invalid_value"))));
    let errors = app.validation_errors(line("a").url("/v1/embeddings").to_string()).await;
    assert_eq!(errors[0]["code"], "url_not_found");
}

#[tokio::test]
async fn azures_base_paths_lead_to_the_same_api() {
    let app = TestApp::start().await;
    let file_id = app.upload(line("a").url("/chat/completions").to_string()).await;
    for base in ["/openai", "/openai/v1"] {
        let mut new = new_batch(&file_id, "24h");
        new["endpoint"] = "/chat/completions".into();
        let created = app.post(&format!("{base}/batches?api-version=2024-10-21"), &new).await.ok();
        let id = text(&created["id"]);
        app.wait_for(id, "completed").await;

        let batch = app.get(&format!("{base}/batches/{id}?api-version=2024-10-21")).await.ok();
        let output = app.get(&format!("{base}/files/{}/content", text(&batch["output_file_id"]))).await;
        assert!(output.text().contains("\"status_code\":200"), "{output:?}");
        let unknown = app.get(&format!("{base}/nothing")).await;
        assert_eq!(unknown.json()["error"]["message"], format!("Invalid URL (GET {base}/nothing)"));
    }
}

#[tokio::test]
async fn audio_rows_are_sent_as_forms_with_their_file() {
    let app = TestApp::with(&["--max-retries", "0"]).await;
    app.upstream.reply(|_| Reply::new(200, r#"{"text":"Hi"}"#));
    let url = "/v1/audio/transcriptions";
    let row = |id: &str, body: Value| line(id).url(url).body(&body.to_string());
    let good = json!({
        "model": "whisper", "file_url": "data:audio/wav;base64,UklGRg==", "language": "en", "temperature": 0.5,
        "timestamp_granularities": ["word", "segment"], "prompt": null,
    });
    let bad = [
        ("none", json!({ "model": "whisper" }), "no 'file_url'"),
        ("text", json!({ "file_url": "data:audio/wav;base64,UklGRg==", "response_format": "srt" }), "'srt'"),
        ("private", json!({ "file_url": format!("http://{}/a.wav", app.upstream.address) }), "--file-url-hosts"),
    ];
    let mut rows = vec![row("good", good)];
    rows.extend(bad.iter().map(|(id, body, _)| row(id, body.clone())));
    let rows = file(rows);

    let created = create_for(&app, &rows, url).await;
    let batch = app.wait_for(text(&created["id"]), "completed").await;

    let results = app.results(&batch).await;
    assert_eq!(results.output[0]["response"]["body"], json!({ "text": "Hi" }));
    for (id, _, why) in bad {
        let line = results.errors.iter().find(|line| line["custom_id"] == id).expect("a line");
        assert!(text(&line["error"]["message"]).contains(why), "{line}");
    }
    let [call] = &app.upstream.calls()[..] else { panic!("one call") };
    assert_eq!(call.path, url);
    let boundary = call.header("content-type").strip_prefix("multipart/form-data; boundary=").expect("a form");
    let field = |name: &str, value: &str| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields = [
        ("language", "en"),
        ("model", "whisper"),
        ("temperature", "0.5"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ];
    for (name, value) in fields {
        assert!(call.text().contains(&field(name, value)), "{name}: {}", call.text());
    }
    assert!(!call.text().contains("file_url") && !call.text().contains("prompt"), "{}", call.text());
    let file = "name=\"file\"; filename=\"audio.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n";
    assert!(call.text().contains(file), "{}", call.text());
}

#[tokio::test]
async fn an_audio_file_is_fetched_from_a_host_that_is_listed() {
    let app = TestApp::with(&["--file-url-hosts", "127.0.0.1", "--max-retries", "1"]).await;
    // The upstream is the host of the file too. Its first answer is that it is away.
    let asked = AtomicUsize::new(0);
    app.upstream.reply(move |call| match call.path.as_str() {
        "/files/b.mp3" if asked.fetch_add(1, SeqCst) == 0 => Reply::error(503),
        "/files/b.mp3" => Reply::new(200, "ID3").header("content-type", "audio/mpeg"),
        "/files/none.mp3" => Reply::error(404),
        _ => Reply::new(200, r#"{"text":"Hi"}"#),
    });
    let row = |id: &str| {
        let body = json!({ "model": "m", "file_url": format!("http://{}/files/{id}.mp3", app.upstream.address) });
        line(id).url("/v1/audio/translations").body(&body.to_string())
    };

    let created = create_for(&app, &file([row("b"), row("none")]), "/v1/audio/translations").await;
    let batch = app.wait_for(text(&created["id"]), "completed").await;

    let results = app.results(&batch).await;
    assert_eq!(results.output_ids(), ["b"]);
    assert!(text(&results.errors[0]["error"]["message"]).contains("status 404"), "{:?}", results.errors);
    let calls = app.upstream.calls();
    let [call] = &calls[..] else { panic!("one call") };
    assert!(call.text().contains("filename=\"b.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\nID3\r\n"), "{}", call.text());
}

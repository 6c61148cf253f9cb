//! What clients see of the simulator.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use clap::Parser;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::{Latency, Overload, Simulator, SimulatorArgs, serve};

mod as_servers;
mod scripts;

const CHAT: &str = "/v1/chat/completions";

fn instant() -> SimulatorArgs {
    SimulatorArgs { latency: Latency::Constant(Duration::ZERO), ..SimulatorArgs::default() }
}

fn chat(model: &str) -> String {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] }).to_string()
}

async fn post(router: &Router, path: &str, key: Option<&str>, body: impl Into<Body>) -> Response {
    let mut request = Request::post(path);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap()
}

async fn json_body(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

async fn until(simulator: &Simulator, in_flight: u64) {
    let reached = async {
        while simulator.stats().in_flight != in_flight {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("requests in flight as expected");
}

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: SimulatorArgs,
}

#[test]
fn the_command_line_has_the_documented_defaults_and_bounds() {
    let parsed = |line: &str| CommandLine::try_parse_from(line.split(' ')).map(|line| line.args);

    assert_eq!(parsed("simulator").unwrap(), SimulatorArgs::default());
    let args = parsed("simulator --latency lognormal:2s:1 --max-parallel 3 --overload reject --fail-rate 0.5").unwrap();
    assert_eq!(args.max_parallel.map(usize::from), Some(3));
    assert_eq!(args.overload, Overload::Reject);
    for line in ["simulator --fail-rate 1.1", "simulator --max-parallel 0", "simulator --latency soon"] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

#[tokio::test]
async fn what_a_request_gets_depends_on_seed_body_and_repeat_alone() {
    let seeded = |seed| Simulator::new(SimulatorArgs { seed, ..instant() }).router();
    let ask = async |router: &Router, model: &str| {
        let response = post(router, CHAT, Some("a"), chat(model)).await;
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.len() == 36 && id.starts_with("req_"), "{id}");
        (id, text(response).await)
    };
    let (one, same, other) = (seeded(1), seeded(1), seeded(2));
    post(&same, CHAT, None, chat("somebody else")).await;

    let answer = ask(&one, "m").await;

    assert_eq!(ask(&same, "m").await, answer);
    assert_ne!(ask(&other, "m").await, answer);
    assert_ne!(ask(&one, "m").await, answer);
    assert_ne!(ask(&seeded(1), "n").await.1.replace(r#""n""#, r#""m""#), answer.1);
}

#[tokio::test]
async fn every_endpoint_answers_with_its_complete_object() {
    let router = Simulator::new(instant()).router();
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let body = json!({ "model": "m \"1\"", "messages": messages, "input": ["a", "b"] }).to_string();
    let cases = [
        (CHAT, "/object", json!("chat.completion")),
        (CHAT, "/choices/0/message/refusal", json!(null)),
        (CHAT, "/choices/0/finish_reason", json!("stop")),
        ("/v1/completions", "/object", json!("text_completion")),
        ("/v1/embeddings", "/object", json!("list")),
        ("/v1/embeddings", "/data/1/index", json!(1)),
        ("/v1/responses", "/object", json!("response")),
        ("/v1/responses", "/output/0/content/0/type", json!("output_text")),
        ("/v1/responses", "/temperature", json!(1.0)),
        ("/v1/moderations", "/results/1/categories/self-harm~1intent", json!(false)),
    ];
    for (path, pointer, expected) in cases {
        let answer = json_body(post(&router, path, None, body.clone()).await).await;

        assert_eq!(answer.pointer(pointer), Some(&expected), "{path} {pointer}");
        assert_eq!(answer["model"], "m \"1\"", "{path}");
        let usage = &answer["usage"];
        let count = |name: &str| usage[name].as_u64().unwrap_or_default();
        let parts = ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens"].map(count);
        assert_eq!(count("total_tokens"), parts.iter().sum::<u64>(), "{path}");
        assert_eq!(count("total_tokens") == 0, path == "/v1/moderations", "{path}");
    }
}

#[tokio::test]
async fn every_input_gets_its_embedding() {
    let router = Simulator::new(instant()).router();
    let cases = [
        (json!("a"), 1),
        (json!(["a"]), 1),
        (json!(["a, [b]", "b", "c"]), 3),
        (json!([1, 2, 3]), 1),
        (json!([[1, 2], [3]]), 2),
    ];
    for (input, expected) in cases {
        let body = json!({ "model": "m", "input": input }).to_string();
        let answer = json_body(post(&router, "/v1/embeddings", None, body).await).await;

        let data = answer["data"].as_array().unwrap();
        assert_eq!(data.len(), expected, "{input}");
        assert!(data.iter().all(|item| item["embedding"].as_array().unwrap().len() == 8), "{input}");
    }
}

#[tokio::test]
async fn a_streamed_chat_ends_with_done() {
    let router = Simulator::new(SimulatorArgs { latency: "1ms".parse().unwrap(), ..instant() }).router();
    let body = concat!(
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"#,
        r#""stream":true,"stream_options":{"include_usage":true}}"#
    );

    let response = post(&router, CHAT, None, body).await;

    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = text(response).await;
    let events: Vec<&str> = text.split_terminator("\n\n").collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "data: [DONE]");
    let chunks: Vec<Value> =
        chunks.iter().map(|chunk| serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap()).collect();
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    let (usage, deltas) = chunks.split_last().unwrap();
    let words = deltas.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect::<String>();
    assert_eq!(usage["usage"]["completion_tokens"], words.split(' ').count());
    assert_eq!(deltas.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_models_of_the_table_behave_as_it_says() {
    let router = Simulator::new(instant()).router();
    let cases = [
        ("simulator-fail-400", 400, "invalid_request_error"),
        ("simulator-fail-429", 429, "requests"),
        ("simulator-fail-500", 500, "server_error"),
    ];
    for (model, status, kind) in cases {
        let response = post(&router, CHAT, None, chat(model)).await;

        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
        assert_eq!(json_body(response).await["error"]["type"], kind);
    }
    let pretty = text(post(&router, CHAT, None, chat("simulator-pretty")).await).await;
    assert!(pretty.lines().count() > 10, "{pretty}");
    assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap()["object"], "chat.completion");
    let html = post(&router, CHAT, None, chat("simulator-html")).await;
    assert_eq!(html.status(), StatusCode::OK);
    assert!(html.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_an_envelope() {
    let router = Simulator::new(instant()).router();
    let cases = [
        (CHAT, "{", 400),
        (CHAT, "", 400),
        (CHAT, r#"["m"]"#, 400),
        (CHAT, r#"{"model":7}"#, 400),
        ("/v1/responses", r#"{"model":"m","stream":true}"#, 400),
        ("/chat/completions", "{}", 404),
        ("/v1/models", "{}", 405),
    ];
    for (path, body, status) in cases {
        let response = post(&router, path, None, body).await;

        assert_eq!(response.status().as_u16(), status, "{path} {body}");
        let error = &json_body(response).await["error"];
        assert_eq!(error["type"], "invalid_request_error", "{path} {body}");
        assert!(error["message"].is_string() && error.get("param").is_some() && error.get("code").is_some());
    }
}

#[tokio::test]
async fn the_share_of_failures_is_as_asked_and_retries_draw_anew() {
    let simulator = Simulator::new(SimulatorArgs { fail_rate: 0.1, seed: 7, ..instant() });
    let router = simulator.router();
    let mut failed = Vec::new();
    for row in 0..1000 {
        let key = row.to_string();
        if post(&router, CHAT, Some(&key), chat(&key)).await.status() == StatusCode::INTERNAL_SERVER_ERROR {
            failed.push(key);
        }
    }
    assert!((70..=130).contains(&failed.len()), "{}", failed.len());
    assert_eq!(simulator.stats().failures, failed.len() as u64);

    let mut again = 0;
    for key in &failed {
        again += u64::from(!post(&router, CHAT, Some(key), chat(key)).await.status().is_success());
    }

    assert!(again < 30, "{again}");
    assert_eq!(simulator.stats().repeats, failed.len() as u64);
}

#[tokio::test]
async fn a_full_server_rejects_if_told_so() {
    let args = SimulatorArgs { max_parallel: 2.try_into().ok(), overload: Overload::Reject, ..instant() };
    let simulator = Simulator::new(args);
    let router = simulator.router();
    let hang = || tokio::spawn(post_owned(router.clone(), "simulator-hang"));
    let (first, _second) = (hang(), hang());
    until(&simulator, 2).await;

    let rejected = post(&router, CHAT, None, chat("m")).await;

    assert_eq!(rejected.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(rejected.headers()["retry-after"], "1");
    assert_eq!(json_body(rejected).await["error"]["code"], "rate_limit_exceeded");
    first.abort();
    until(&simulator, 1).await;
    assert_eq!(post(&router, CHAT, None, chat("m")).await.status(), StatusCode::OK);
    assert_eq!(simulator.stats().peak_in_flight, 2);
}

#[tokio::test]
async fn a_full_server_lets_requests_wait_for_their_turn() {
    let simulator = Simulator::new(SimulatorArgs { max_parallel: 1.try_into().ok(), ..instant() });
    let hang = tokio::spawn(post_owned(simulator.router(), "simulator-hang"));
    until(&simulator, 1).await;
    let waiting = tokio::spawn(post_owned(simulator.router(), "m"));
    until(&simulator, 2).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());

    hang.abort();

    assert_eq!(waiting.await.unwrap().status(), StatusCode::OK);
    assert_eq!(simulator.stats().in_flight, 0);
}

async fn post_owned(router: Router, model: &'static str) -> Response {
    post(&router, CHAT, None, chat(model)).await
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_out_and_a_stop_ends_every_wait() {
    let simulator = Simulator::new(SimulatorArgs { latency: "1h".parse().unwrap(), ..instant() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, simulator.clone(), async move { drop(stopped.await) }));
    let connect = async |model: &str| {
        let body = chat(model);
        let mut connection = TcpStream::connect(address).await.unwrap();
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        connection.write_all((head + &body).as_bytes()).await.unwrap();
        connection
    };

    let gone = connect("simulator-hang").await;
    until(&simulator, 1).await;
    drop(gone);
    until(&simulator, 0).await;

    let _hanging = connect("simulator-hang").await;
    let _slow = connect("m").await;
    until(&simulator, 2).await;
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert_eq!(simulator.stats().in_flight, 0);
    assert_eq!(simulator.stats().failures, 1);
}

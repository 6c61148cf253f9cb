//! The order of rows, on a server that remembers the beginnings of prompts.

use std::time::Duration;

use batchwright::simulator::{self, Scenario, Simulator, SimulatorArgs};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::fake_upstream::FakeUpstream;
use crate::common::test_app::Stopped;

const PROMPTS: usize = 32;
const ROWS: usize = 640;

/// Rows of which each has another system message than the one before.
fn rows() -> String {
    let row = |number: usize| {
        let system = format!("{:02} ", number % PROMPTS).repeat(1000);
        let messages =
            json!([{ "role": "system", "content": system }, { "role": "user", "content": number.to_string() }]);
        let body = json!({ "messages": messages, "model": "m" });
        json!({ "custom_id": number.to_string(), "method": "POST", "url": "/v1/chat/completions", "body": body })
            .to_string()
    };
    (0..ROWS).map(row).collect::<Vec<_>>().join("\n")
}

/// The part of the prompts' tokens that the server had in its cache, which has room for a third of the prompts.
async fn cached_part(flags: &[&str]) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("the listener is bound");
    let scenario = Scenario {
        prefix_cache_tokens: 8_000,
        token_time: Duration::from_micros(100),
        prompt_tokens_per_second: 1e6,
        output_tokens: (5.0, 0.0),
        ..Scenario::default()
    };
    let args = SimulatorArgs { scenario: Some(scenario), ..SimulatorArgs::default() };
    tokio::spawn(simulator::serve(listener, Simulator::new(args), std::future::pending()));
    let table = format!("[[upstreams]]\nname = 'simulator'\nurl = 'http://{address}/v1'\nmodels = ['*']\n");
    let app = Stopped::new(FakeUpstream::down()).start_with_upstreams(&table, flags).await;

    let id = app.submit(rows()).await;
    let batch = app.wait_for(&id, "completed").await;

    assert_eq!(batch["request_counts"]["completed"], ROWS);
    let tokens = |count: &Value| count.as_f64().expect("a number");
    tokens(&batch["usage"]["input_tokens_details"]["cached_tokens"]) / tokens(&batch["usage"]["input_tokens"])
}

#[tokio::test]
async fn rows_that_begin_alike_find_their_prompt_in_the_servers_cache() {
    let calls = ["--concurrency", "fixed", "--max-concurrency", "16"];

    let by_prompt = cached_part(&calls).await;
    let by_file = cached_part(&[&calls[..], &["--row-order", "file"]].concat()).await;

    assert!(by_prompt > 0.9, "{by_prompt}");
    assert!(by_file < 0.1, "{by_file}");
}

//! What MCP servers are told of who asks, and nobody else.

use axum::response::Response;
use serde_json::{Value, json};

use crate::common::process::Process;
use crate::scripted::{Scripted, result};
use crate::stage::{Stage, call, last_text, scripted, submit, types};

/// A server with the tools `good` and `bad`.
async fn mcp_server() -> Scripted {
    Scripted::start(|message: &Value| -> Response {
        let offer = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        let said =
            |text: &str, is_error: bool| json!({ "content": [{ "type": "text", "text": text }], "isError": is_error });
        match (message["method"].as_str(), message["params"]["name"].as_str()) {
            (Some("tools/list"), _) => result(message, &json!({ "tools": [offer("good"), offer("bad")] })),
            (_, Some("good")) => result(message, &said("ok", false)),
            _ => result(message, &said("no", true)),
        }
    })
    .await
}

/// The methods that a server was asked, of those whose request had this header.
fn asked_with(server: &Scripted, header: &str, value: &str) -> Vec<String> {
    let has = |headers: &axum::http::HeaderMap| headers.get(header).is_some_and(|sent| sent == value);
    let asked = server.asked();
    asked.iter().filter(|(headers, _)| has(headers)).filter_map(|(_, message)| method(message)).collect()
}

fn method(message: &Value) -> Option<String> {
    message["method"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn secrets_of_mcp_servers_reach_those_servers_and_nobody_else() {
    let [ours, theirs] = [mcp_server().await, mcp_server().await];
    let settings = format!(
        "[[mcp_servers]]\nlabel = 'ours'\nurl = '{}'\n\
         headers = {{ Authorization = 'Bearer ${{MCP_KEY}}', x-plain = 'sesame-2' }}\n",
        ours.url
    );
    let listed = format!("127.0.0.1:{}", theirs.url.port().expect("a port"));
    let stage = Stage::with(&["--latency", "0ms"], &settings, &["--mcp-allowed-hosts", &listed]).await;
    let mut command = stage.command();
    command.env("MCP_KEY", "sesame-1").args(["--log", "trace"]);
    let mut server = Process::start(command).await;
    let client = server.client();
    let turn = ["ours__good", "ours__bad", "theirs__good", "theirs__bad"].map(|name| call(name, json!({})));
    let mut body = scripted(json!({ "turns": [turn] }), &[]);
    body["tools"] = json!([
        { "type": "mcp", "server_label": "ours" },
        { "type": "mcp", "server_label": "theirs", "server_url": theirs.url.as_str(), "authorization": "sesame-3",
            "headers": { "x-key": "sesame-4" }, "require_approval": "never" },
    ]);

    let id = submit(&client, &[("row", body)], json!({})).await;
    let batch = client.wait_for(&id, "completed").await;
    let output = client.results(&batch).await.output[0].clone();
    let steps = client.get(&format!("/v1/batches/{id}/requests/row/steps")).await.ok().to_string();
    server.terminate().await;

    let response = &output["response"]["body"];
    let (list, called) = ("mcp_list_tools", "mcp_call");
    assert_eq!(types(response), [list, list, called, called, called, called, "message"]);
    assert_eq!(last_text(response), "ok | no | ok | no");
    for (mcp, [name, value], [other, another]) in [
        (&ours, ["authorization", "Bearer sesame-1"], ["x-plain", "sesame-2"]),
        (&theirs, ["authorization", "Bearer sesame-3"], ["x-key", "sesame-4"]),
    ] {
        let all: Vec<String> = mcp.asked().iter().filter_map(|(_, message)| method(message)).collect();
        assert_eq!(all.iter().filter(|method| *method == "tools/call").count(), 2, "{all:?}");
        assert_eq!([asked_with(mcp, name, value), asked_with(mcp, other, another)], [all.clone(), all]);
    }
    assert!(asked_with(&ours, "x-key", "sesame-4").is_empty() && asked_with(&theirs, "x-plain", "sesame-2").is_empty());
    // Each with a word that it does have.
    let places = [
        ("theirs__good", steps),
        ("theirs", output.to_string()),
        ("TRACE", server.log()),
        ("theirs__good", stage.database()),
    ];
    for (known, text) in places {
        assert!(text.contains(known) && !text.contains("sesame"), "{known}: {text}");
    }
}

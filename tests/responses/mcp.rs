//! Rows that use the tools of a real MCP server.

use serde_json::{Value, json};

use crate::everything::Everything;
use crate::stage::{Stage, call, items, last_text, scripted, types};

/// A stage whose settings name the server, asked through this API.
async fn stage(server: &Everything, dialect: &str) -> Stage {
    let settings = format!("[[mcp_servers]]\nlabel = 'every'\nurl = '{}'\n", server.url());
    Stage::with(&["--latency", "0ms"], &settings, &["--upstream-responses", dialect, "--max-retries", "0"]).await
}

/// A row with this MCP server among its tools, which calls these functions in one turn.
fn row(server: Value, calls: &[Value]) -> Value {
    let mut body = scripted(json!({ "turns": [calls] }), &[]);
    body["tools"] = json!([server]);
    body
}

fn echo(message: &str) -> Value {
    call("every__echo", json!({ "message": message }))
}

#[tokio::test]
async fn tools_of_a_server_are_listed_called_and_shown() {
    let server = Everything::start().await;
    for dialect in ["native", "chat"] {
        let stage = stage(&server, dialect).await;
        let tool = json!({ "type": "mcp", "server_label": "every" });

        let response = stage.response(row(tool.clone(), &[echo("one"), echo("two")])).await;

        assert_eq!(types(&response), ["mcp_list_tools", "mcp_call", "mcp_call", "message"]);
        let [list, first, _, _] = &items(&response)[..] else { panic!("{response}") };
        assert_eq!(list["server_label"], "every");
        let offered: Vec<&Value> = list["tools"].as_array().expect("a list").iter().map(|tool| &tool["name"]).collect();
        assert!(offered.contains(&&json!("echo")) && offered.len() > 5, "{offered:?}");
        assert_eq!(
            (&first["server_label"], &first["name"], &first["arguments"], &first["status"], &first["error"]),
            (&json!("every"), &json!("echo"), &json!(r#"{"message":"one"}"#), &json!("completed"), &Value::Null)
        );
        assert_eq!(first["output"], "Echo: one");
        assert_eq!(last_text(&response), "Echo: one | Echo: two");
        assert_eq!(response["tools"], json!([tool]));
    }
}

#[tokio::test]
async fn what_needs_approval_ends_the_response_with_the_request_for_it() {
    let server = Everything::start().await;
    let stage = stage(&server, "native").await;
    let approvals = [json!("always"), json!({ "never": { "tool_names": ["get-sum"] } })];
    for require_approval in approvals {
        let tool = json!({ "type": "mcp", "server_label": "every", "require_approval": require_approval });

        let response = stage.response(row(tool, &[echo("one")])).await;

        assert_eq!(response["status"], "completed");
        assert_eq!(types(&response), ["mcp_list_tools", "mcp_approval_request"]);
        assert_eq!(items(&response)[1]["name"], "echo");
    }
    let tool =
        json!({ "type": "mcp", "server_label": "every", "require_approval": { "never": { "tool_names": ["echo"] } } });
    assert_eq!(last_text(&stage.response(row(tool, &[echo("one")])).await), "Echo: one");
}

#[tokio::test]
async fn a_row_sees_no_more_tools_than_it_allows_itself() {
    let server = Everything::start().await;
    let stage = stage(&server, "native").await;
    let tool = json!({ "type": "mcp", "server_label": "every", "allowed_tools": ["echo"] });

    let response = stage.response(row(tool, &[echo("one"), call("every__get-sum", json!({ "a": 1, "b": 2 }))])).await;

    assert_eq!(items(&response)[0]["tools"].as_array().expect("a list").len(), 1);
    assert!(last_text(&response).contains("there is no function 'every__get-sum'; there are: every__echo"));
}

#[tokio::test]
async fn a_tool_that_fails_is_a_failed_call_that_the_model_sees() {
    let server = Everything::start().await;
    let stage = stage(&server, "native").await;
    let tool = json!({ "type": "mcp", "server_label": "every" });

    let response = stage.response(row(tool, &[call("every__echo", json!({ "message": 7 }))])).await;

    let failed = &items(&response)[1];
    assert_eq!((&failed["status"], &failed["output"]), (&json!("failed"), &Value::Null), "{failed}");
    assert_eq!(failed["error"]["type"], "mcp_tool_execution_error");
    assert_eq!(failed["error"]["content"][0]["text"], last_text(&response));
}

#[tokio::test]
async fn a_row_may_name_a_server_that_is_on_the_list_and_no_other() {
    let server = Everything::start().await;
    let url = server.url();
    let tool = json!({
        "type": "mcp", "server_label": "every", "server_url": url.as_str(), "require_approval": "never",
        "headers": { "x-key": "sesame" },
    });
    let body = row(tool, &[echo("one")]);
    let listed = format!("127.0.0.1:{}", url.port().expect("a port"));

    let response = Stage::with_flags(&["--mcp-allowed-hosts", &listed]).await.response(body.clone()).await;
    assert_eq!(last_text(&response), "Echo: one");
    assert!(response["tools"][0].get("headers").is_none());

    let line = Stage::with_flags(&["--mcp-allowed-hosts", "mcp.example.com"]).await.error(body.clone()).await;
    assert_eq!(line["error"]["code"], "unsupported");
    assert!(line["error"]["message"].as_str().expect("a message").contains("'every'"), "{line}");

    // A name that leads to a private address, though it is on the list.
    let mut by_name = body;
    by_name["tools"][0]["server_url"] = json!(url.as_str().replace("127.0.0.1", "localhost"));
    let stage = Stage::with_flags(&["--mcp-allowed-hosts", "localhost", "--max-retries", "0"]).await;
    let line = stage.error(by_name).await;
    assert!(line["error"]["message"].as_str().expect("a message").contains("public address"), "{line}");
}

#[tokio::test]
async fn who_does_not_say_so_approves_of_the_operators_server_and_of_no_other() {
    let server = Everything::start().await;
    let url = server.url();
    let listed = format!("127.0.0.1:{}", url.port().expect("a port"));
    let theirs = json!({ "type": "mcp", "server_label": "every", "server_url": url.as_str() });

    let response =
        Stage::with_flags(&["--mcp-allowed-hosts", &listed]).await.response(row(theirs, &[echo("one")])).await;

    assert_eq!(types(&response), ["mcp_list_tools", "mcp_approval_request"]);

    let ours = json!({ "type": "mcp", "server_label": "every" });
    let response = stage(&server, "native").await.response(row(ours, &[echo("one")])).await;

    assert_eq!(types(&response), ["mcp_list_tools", "mcp_call", "message"]);
}

#[tokio::test]
async fn a_server_that_is_away_is_a_failure_that_may_pass_and_not_the_upstreams() {
    let mut server = Everything::start().await;
    let stage = stage(&server, "native").await;
    server.kill();

    let line = stage.error(row(json!({ "type": "mcp", "server_label": "every" }), &[echo("one")])).await;

    assert_eq!(line["error"]["code"], "tool_server_unreachable");
    assert_eq!(stage.upstream().await["requests"], 0);
}

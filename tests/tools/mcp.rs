//! The MCP client against the reference server.

use std::sync::Arc;
use std::time::Duration;

use batchwright::tools::ToolError;
use batchwright::tools::mcp::{McpClient, McpServer};
use futures::future::{join_all, try_join_all};
use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};
use url::Url;

use crate::eventually::until;
use crate::everything::Everything;

/// A server of the operator's.
pub fn server(url: Url) -> McpServer {
    McpServer {
        tls: None,
        label: "test".to_owned(),
        url,
        headers: HeaderMap::new(),
        allowed_tools: None,
        timeout: Duration::from_secs(30),
        max_output_bytes: 1 << 20,
        row_hosts: None,
    }
}

pub fn client(server: McpServer) -> McpClient {
    McpClient::new(server).expect("there are certificates")
}

pub fn arguments(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).expect("it is an object")
}

pub async fn echo(client: &McpClient, message: &str) -> Result<String, ToolError> {
    client.call("echo", arguments(json!({"message": message})), "key").await
}

#[tokio::test]
async fn tools_are_listed_in_the_shape_of_openai() {
    let everything = Everything::start().await;
    let client = client(server(everything.url()));

    let tools = client.tools().await.unwrap();

    let sum = serde_json::to_value(tools.iter().find(|tool| tool.name == "get-sum").unwrap()).unwrap();
    assert_eq!(sum["description"], "Returns the sum of two numbers");
    assert_eq!(sum["input_schema"]["required"], json!(["a", "b"]));
    assert_eq!(sum["annotations"]["readOnlyHint"], true);
    assert!(Arc::ptr_eq(&tools, &client.tools().await.unwrap()), "the list is kept");
}

#[tokio::test]
async fn a_call_returns_the_text_of_its_result() {
    let everything = Everything::start().await;
    let client = client(server(everything.url()));

    assert_eq!(echo(&client, "hello").await.unwrap(), "Echo: hello");
    let sum = client.call("get-sum", arguments(json!({"a": 2, "b": 3})), "key").await;
    assert_eq!(sum.unwrap(), "The sum of 2 and 3 is 5.");
    let image = client.call("get-tiny-image", Map::new(), "key").await.unwrap();
    let lines: Vec<_> = image.lines().collect();
    let picture: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!([lines[0], lines[2]], ["Here's the image you requested:", "The image above is the MCP logo."]);
    assert_eq!([&picture["type"], &picture["mimeType"]], ["image", "image/png"]);
}

#[tokio::test]
async fn a_call_that_the_server_does_not_take_has_failed() {
    let everything = Everything::start().await;
    let client = client(server(everything.url()));

    for (tool, arguments) in [("no-such-tool", json!({})), ("get-sum", json!({"a": "two"}))] {
        let error = client.call(tool, self::arguments(arguments), "key").await.unwrap_err();
        assert!(matches!(&error, ToolError::Failed(text) if text.contains(tool)), "{error:?}");
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cut_and_leaves_the_session_in_order() {
    let everything = Everything::start().await;
    let client = client(McpServer { timeout: Duration::from_secs(2), ..server(everything.url()) });
    echo(&client, "the session has begun").await.unwrap();

    let slow = client.call("trigger-long-running-operation", arguments(json!({"duration": 60, "steps": 60})), "key");

    assert_eq!(slow.await, Err(ToolError::TimedOut(Duration::from_secs(2))));
    assert_eq!(echo(&client, "hello").await.unwrap(), "Echo: hello");
}

#[tokio::test]
async fn many_calls_at_once_share_a_session_which_ends_with_the_client() {
    let everything = Everything::start().await;
    let client = client(server(everything.url()));

    let calls = (0..100).map(|n| client.call("get-sum", arguments(json!({"a": n, "b": 1})), "key"));
    let sums = try_join_all(calls.collect::<Vec<_>>()).await.unwrap();

    for (n, sum) in sums.iter().enumerate() {
        assert_eq!(*sum, format!("The sum of {n} and 1 is {}.", n + 1));
    }
    assert_eq!(everything.count("Session initialized"), 1);
    drop(client);
    until("the session to end", || everything.count("Received session termination request") == 1).await;
}

#[tokio::test]
async fn slow_calls_do_not_hold_up_others() {
    let everything = Everything::start().await;
    let client = client(server(everything.url()));
    let slow = arguments(json!({"duration": 60, "steps": 1}));
    let slow = join_all((0..30).map(|_| client.call("trigger-long-running-operation", slow.clone(), "key")));

    tokio::select! {
        ended = slow => panic!("they ended first: {ended:?}"),
        echoed = echo(&client, "hello") => assert_eq!(echoed.unwrap(), "Echo: hello"),
    }
}

#[tokio::test]
async fn a_server_that_was_restarted_is_called_in_another_session() {
    let mut everything = Everything::start().await;
    let client = client(server(everything.url()));
    echo(&client, "before").await.unwrap();

    everything.kill();
    everything.start_again().await;

    assert_eq!(echo(&client, "after").await.unwrap(), "Echo: after");
    assert_eq!(everything.count("Session initialized"), 1);
}

#[tokio::test]
async fn a_server_that_is_gone_cannot_be_reached_and_can_when_it_is_back() {
    let mut everything = Everything::start().await;
    let [used, unused] = [client(server(everything.url())), client(server(everything.url()))];
    echo(&used, "before").await.unwrap();

    everything.kill();

    for client in [&used, &unused] {
        let error = echo(client, "meanwhile").await.unwrap_err();
        assert!(matches!(error, ToolError::Unreachable(_)), "{error:?}");
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
    everything.start_again().await;
    for client in [&used, &unused] {
        assert_eq!(echo(client, "after").await.unwrap(), "Echo: after");
    }
}

#[tokio::test]
async fn a_call_under_way_ends_when_its_server_does() {
    let mut everything = Everything::start().await;
    let client = client(server(everything.url()));
    echo(&client, "the session has begun").await.unwrap();
    let posts = everything.count("POST");

    let slow = client.call("trigger-long-running-operation", arguments(json!({"duration": 60, "steps": 60})), "key");
    let kill = async {
        until("the call to arrive", || everything.count("POST") > posts).await;
        everything.kill();
    };

    let (error, ()) = futures::join!(slow, kill);
    assert!(matches!(error, Err(ToolError::Unreachable(_))), "{error:?}");
}

#[tokio::test]
async fn tools_that_are_not_allowed_are_neither_seen_nor_called() {
    let everything = Everything::start().await;
    let allowed_tools = Some(vec!["echo".to_owned(), "no-such-tool".to_owned()]);
    let client = client(McpServer { allowed_tools, ..server(everything.url()) });

    let tools = client.tools().await.unwrap();
    let refused = client.call("get-env", Map::new(), "key").await.unwrap_err();

    assert_eq!(tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["echo"]);
    assert_eq!(refused.to_string(), "The tool was not called: `get-env` is not among the tools that are allowed.");
}

#[tokio::test]
async fn an_output_beyond_the_limit_is_not_taken() {
    let everything = Everything::start().await;
    let client = client(McpServer { max_output_bytes: 1000, ..server(everything.url()) });

    assert_eq!(echo(&client, &"x".repeat(1000)).await, Err(ToolError::TooLarge { limit: 1000 }));
    assert!(echo(&client, &"x".repeat(900)).await.is_ok());
}

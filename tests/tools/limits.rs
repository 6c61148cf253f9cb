//! What the MCP client takes from servers that mean harm, and where it goes for rows.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use batchwright::net::{AllowedHost, AllowedHosts};
use batchwright::tools::ToolError;
use batchwright::tools::mcp::{McpClient, McpServer};
use serde_json::{Map, json};
use url::Url;

use crate::eventually::until;
use crate::mcp::{client, echo, server};
use crate::scripted::{Scripted, endless, result, stuck};

fn row_given(url: Url, hosts: &[&str]) -> McpServer {
    let hosts: AllowedHosts = hosts.iter().map(|host| host.parse::<AllowedHost>().expect("it is a host")).collect();
    McpServer { row_hosts: Some(Arc::new(hosts)), ..server(url) }
}

async fn says_hello() -> Scripted {
    Scripted::start(|call| result(call, &json!({"content": [{"type": "text", "text": "hello"}]}))).await
}

#[tokio::test]
async fn a_row_reaches_a_private_address_only_if_it_is_listed() {
    let hello = says_hello().await;

    let unlisted = McpClient::new(row_given(hello.url.clone(), &["mcp.example.com"])).err().unwrap();
    let listed = client(row_given(hello.url.clone(), &["127.0.0.1"]));

    assert_eq!(unlisted.to_string(), "The tool was not called: its host is not among those that are allowed.");
    assert_eq!(echo(&listed, "").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_row_does_not_reach_a_private_address_by_a_name() {
    let hello = says_hello().await;
    let url: Url = format!("http://localhost:{}/mcp", hello.url.port().unwrap()).parse().unwrap();

    let by_row = echo(&client(row_given(url.clone(), &["localhost"])), "").await;
    let by_operator = echo(&client(server(url)), "").await;

    assert_eq!(by_row.unwrap_err().to_string(), "The tool was not called: its host has no public address.");
    assert_eq!(by_operator.unwrap(), "hello");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let hello = says_hello().await;
    let target = hello.url.to_string();
    let redirecting =
        Scripted::rude(move |_| (StatusCode::TEMPORARY_REDIRECT, [("location", target.clone())]).into_response()).await;

    let error = echo(&client(server(redirecting.url.clone())), "").await.unwrap_err();

    assert_eq!(error.to_string(), "The tool could not be reached: it answered HTTP 307 Temporary Redirect.");
    assert!(hello.asked().is_empty());
    assert_eq!(redirecting.asked().len(), 1);
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let begin = r#"{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":""#;
    let json = Scripted::start(move |_| endless("application/json", begin)).await;
    let events = Scripted::start(|_| endless("text/event-stream", "id: 1\ndata: ")).await;

    for server in [json, events] {
        let error = echo(&client(self::server(server.url.clone())), "").await;
        assert_eq!(error, Err(ToolError::TooLarge { limit: 4 << 20 }));
        assert_eq!(server.asked().len(), 3, "it is not asked again");
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled() {
    for content_type in ["application/json", "text/event-stream"] {
        let stuck = Scripted::start(move |call| match call["method"].as_str() {
            Some("tools/call") => stuck(content_type),
            _ => StatusCode::ACCEPTED.into_response(),
        })
        .await;
        let client = client(server(stuck.url.clone()));
        let asked = |method| stuck.asked().iter().filter(|(_, message)| message["method"] == method).count();

        tokio::select! {
            ended = echo(&client, "") => panic!("it ended: {ended:?}"),
            () = until("the call to arrive", || asked("tools/call") == 1) => {}
        }

        until("the call to be cancelled", || asked("notifications/cancelled") == 1).await;
    }
}

#[tokio::test]
async fn the_answers_of_all_servers_together_have_room() {
    let stuck = Scripted::start(|_| stuck("application/json")).await;
    let hello = says_hello().await;
    // A quarter of what is read is kept, so that 16 answers take all.
    let large = |url: &Url| client(McpServer { max_output_bytes: 16 << 20, ..server(url.clone()) });
    let (stuck_client, hello_client) = (large(&stuck.url), large(&hello.url));
    let asked = || stuck.asked().iter().filter(|(_, message)| message["method"] == "tools/call").count();

    let calls = futures::future::join_all((0..20).map(|_| echo(&stuck_client, "")));
    tokio::select! {
        ended = calls => panic!("they ended: {ended:?}"),
        () = until("the calls to arrive", || asked() == 16) => {}
        // Nothing is left for the last of them.
    }
    assert_eq!(echo(&hello_client, "").await.unwrap(), "hello", "there is room again once they are called off");
    assert_eq!(asked(), 16);
}

#[tokio::test]
async fn headers_and_the_key_are_sent_and_not_told() {
    let refusing = Scripted::start(|_| (StatusCode::FORBIDDEN, "no access with Bearer secret").into_response()).await;
    let mut server = server(refusing.url.clone());
    server.headers.insert("authorization", "Bearer secret".parse().unwrap());
    server.url.set_query(Some("token=secret"));

    let error = client(server).call("tool", Map::new(), "row-7").await.unwrap_err();

    assert_eq!(error.to_string(), "The tool could not be reached: it answered HTTP 403 Forbidden.");
    let asked = refusing.asked();
    assert!(asked.iter().all(|(headers, _)| headers["authorization"] == "Bearer secret"));
    assert_eq!(asked[2].1["params"]["_meta"]["idempotency-key"], "row-7");
}

#[tokio::test]
async fn headers_of_the_protocol_cannot_be_set() {
    for name in ["host", "mcp-session-id", "transfer-encoding"] {
        let mut server = server("https://mcp.example.com/".parse().unwrap());
        server.headers.insert(name, "x".parse().unwrap());

        let error = McpClient::new(server).err().unwrap();

        assert_eq!(error, ToolError::Refused(format!("the header `{name}` cannot be set")));
    }
}

#[tokio::test]
async fn an_error_for_no_request_in_particular_ends_the_call() {
    let confused = Scripted::start(|_| {
        let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "what?"}});
        (StatusCode::BAD_REQUEST, axum::Json(error)).into_response()
    })
    .await;

    let error = echo(&client(server(confused.url.clone())), "").await;

    assert_eq!(error, Err(ToolError::Failed("what?".to_owned())));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let client = client(McpServer { timeout: Duration::from_millis(100), ..server(url) });

    assert_eq!(echo(&client, "").await, Err(ToolError::TimedOut(Duration::from_millis(100))));
    assert_eq!(client.tools().await.unwrap_err(), ToolError::TimedOut(Duration::from_millis(100)));
}

#[tokio::test]
async fn all_pages_are_listed_unless_there_are_too_many() {
    let page = |call: &serde_json::Value, size: usize, last: u64| {
        let number = call["params"]["cursor"].as_str().map_or(0, |cursor| cursor.parse().unwrap());
        let tool = |n| json!({"name": format!("{number}-{n}"), "inputSchema": {"type": "object"}});
        let next = (number < last).then(|| (number + 1).to_string());
        result(call, &json!({"tools": (0..size).map(tool).collect::<Vec<_>>(), "nextCursor": next}))
    };
    let few = Scripted::start(move |call| page(call, 2, 1)).await;
    let endless = Scripted::start(move |call| page(call, 100, u64::MAX)).await;

    let listed = client(server(few.url.clone())).tools().await.unwrap();
    let error = client(server(endless.url.clone())).tools().await.unwrap_err();

    assert_eq!(listed.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["0-0", "0-1", "1-0", "1-1"]);
    assert_eq!(error, ToolError::Refused("its server offers more than 1000 tools".to_owned()));
}

//! An MCP server without sessions that begins as it should, and then answers what a test wants.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use serde_json::{Value, json};
use url::Url;

/// What a server has been asked: headers and body.
type Asked = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

pub struct Scripted {
    pub url: Url,
    asked: Asked,
}

impl Scripted {
    /// A server that answers everything after the beginning with this.
    pub async fn start(answer: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::rude(move |message| match message["method"].as_str() {
            Some("initialize") => {
                let server = json!({"name": "scripted", "version": "1"});
                let version = &message["params"]["protocolVersion"];
                result(message, &json!({"protocolVersion": version, "capabilities": {}, "serverInfo": server}))
            }
            Some("notifications/initialized") => StatusCode::ACCEPTED.into_response(),
            _ => answer(message),
        })
        .await
    }

    /// A server that answers everything with this.
    pub async fn rude(answer: impl Fn(&Value) -> Response + Clone + Send + Sync + 'static) -> Self {
        let asked = Asked::default();
        let seen = asked.clone();
        let answer = async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.expect("the request arrives");
            let message: Value = serde_json::from_slice(&body).unwrap_or_default();
            let answer = answer(&message);
            seen.lock().expect("nobody panics with the lock").push((head.headers, message));
            answer
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("it is bound"));
        tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        Self { url: url.parse().expect("it is a URL"), asked }
    }

    pub fn asked(&self) -> Vec<(HeaderMap, Value)> {
        self.asked.lock().expect("nobody panics with the lock").clone()
    }
}

/// The answer to a request.
pub fn result(request: &Value, result: &Value) -> Response {
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}

/// An answer that begins like this and never ends.
pub fn endless(content_type: &'static str, begin: &'static str) -> Response {
    let begin = stream::iter([Bytes::from_static(begin.as_bytes())]);
    unended(content_type, begin.chain(stream::repeat(vec![b'x'; 1 << 16].into())))
}

/// The headers of an answer, and then nothing.
pub fn stuck(content_type: &'static str) -> Response {
    unended(content_type, stream::pending())
}

fn unended(content_type: &'static str, body: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    ([("content-type", content_type)], Body::from_stream(body.map(Ok::<_, Infallible>))).into_response()
}

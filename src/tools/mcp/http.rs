//! The HTTP client of an MCP session. It wraps `rmcp`'s client, and answers some failures at once that `rmcp` would
//! wait out until its timeout.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Error};
use rmcp::model::{ClientJsonRpcMessage, ErrorCode, ErrorData, RequestId, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::Sse;

/// The error code that stands for an answer that is too long; its data is the limit. JSON-RPC itself has no such code.
pub const TOO_LARGE: ErrorCode = ErrorCode(413);

const LEAST_MESSAGE_BYTES: usize = 4 << 20;
/// Bytes of a message for each byte of output: JSON escapes some characters, and structured content repeats the text.
const MESSAGE_BYTES_PER_OUTPUT_BYTE: usize = 4;

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, Result<Sse, SseError>>;
type McpHttpResult<T> = Result<T, StreamableHttpError<Error>>;

/// The longest message that is read, for results whose text may be this long.
pub fn max_message_bytes(max_output_bytes: usize) -> usize {
    max_output_bytes.saturating_mul(MESSAGE_BYTES_PER_OUTPUT_BYTE).max(LEAST_MESSAGE_BYTES)
}

/// The HTTP client of a session.
#[derive(Clone)]
pub struct BoundedHttp(Client);

impl BoundedHttp {
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl StreamableHttpClient for BoundedHttp {
    type Error = Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> McpHttpResult<StreamableHttpPostResponse> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, auth, headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> McpHttpResult<StreamableHttpPostResponse> {
        let request = match &message {
            ClientJsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let has_session = session.is_some();
        let posted = self.0.post_message_with_response_limits(uri, message, session, auth, headers, limits).await;
        match (posted.map_err(without_url)?, request) {
            (StreamableHttpPostResponse::Json(answer, session), Some(id)) => {
                Ok(StreamableHttpPostResponse::Json(addressed(answer, id, has_session)?, session))
            }
            (StreamableHttpPostResponse::Sse(events, session), Some(id)) => {
                let events =
                    events.map(move |event| event.or_else(|error| too_large(error, &id, limits.max_sse_event_size)));
                Ok(StreamableHttpPostResponse::Sse(events.boxed(), session))
            }
            (other, _) => Ok(other),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> McpHttpResult<()> {
        self.0.delete_session(uri, session, auth, headers).await.map_err(without_url)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> McpHttpResult<Events> {
        let limit = StreamableHttpResponseLimits::default().max_sse_event_size;
        self.get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, limit).await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
        limit: usize,
    ) -> McpHttpResult<Events> {
        // Unrequested messages of a server are of no use here. A stream is opened only to resume an answer that broke
        // off.
        if last_event.is_none() {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        let opened = self.0.get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, limit).await;
        opened.map_err(without_url)
    }
}

/// Assigns an error without a request id to its request, which `rmcp` could not do. Most often such an error means that
/// the server does not know the session, with status 400 instead of 404: then `rmcp` is told that the session expired,
/// so that it starts another one and repeats the request.
fn addressed(
    answer: ServerJsonRpcMessage,
    request: RequestId,
    has_session: bool,
) -> McpHttpResult<ServerJsonRpcMessage> {
    let ServerJsonRpcMessage::Error(error) = &answer else { return Ok(answer) };
    let is_for_request = error.id.as_ref().is_some_and(|id| id.to_string() == request.to_string());
    match is_for_request {
        true => Ok(answer),
        false if has_session => Err(StreamableHttpError::SessionExpired),
        false => Ok(ServerJsonRpcMessage::error(error.error.clone(), Some(request))),
    }
}

/// Turns the end of a stream into an error message if an event was too long. `rmcp` itself reports only that the stream
/// ended, and its error can be recognised only by its text.
fn too_large(error: SseError, request: &RequestId, limit: usize) -> Result<Sse, SseError> {
    let SseError::Body(cause) = &error else { return Err(error) };
    if !cause.to_string().contains("exceeded the maximum size") {
        return Err(error);
    }
    let answer = ErrorData::new(TOO_LARGE, "too large", Some(limit.into()));
    let answer = ServerJsonRpcMessage::error(answer, Some(request.clone()));
    Ok(Sse::default().data(serde_json::to_string(&answer).expect("a message can be written as JSON")))
}

/// Removes the URL from an error: it may have a key in it, and errors are logged.
fn without_url(error: StreamableHttpError<Error>) -> StreamableHttpError<Error> {
    match error {
        StreamableHttpError::Client(error) => StreamableHttpError::Client(error.without_url()),
        other => other,
    }
}

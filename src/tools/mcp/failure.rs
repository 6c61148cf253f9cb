//! Translates `rmcp`'s errors to errors for the model. The server's HTTP bodies are left out: they could be anything.

use reqwest::Error;
use rmcp::ServiceError;
use rmcp::model::{ErrorCode, ErrorData};
use rmcp::service::ClientInitializeError;
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::StreamableHttpError;

use super::http::TOO_LARGE;
use crate::tools::ToolError;

/// An error should be a sentence; what is longer is cut.
const MAX_MESSAGE_CHARS: usize = 1000;

/// The error of a session that could not be started.
pub fn of_beginning(error: ClientInitializeError) -> ToolError {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(&error),
        ClientInitializeError::JsonRpcError(error) => unreachable(&format!("it began no session: {}", message(&error))),
        _ => unreachable("it began no session"),
    }
}

/// The error of a failed request.
pub fn of_call(error: ServiceError) -> ToolError {
    match error {
        ServiceError::McpError(error) => match error.code {
            TOO_LARGE => ToolError::TooLarge { limit: limit_in(&error) },
            ErrorCode::INVALID_PARAMS => ToolError::InvalidArguments(message(&error)),
            _ => ToolError::Failed(message(&error)),
        },
        ServiceError::TransportSend(error) => of_transport(&error),
        ServiceError::UnexpectedResponse => ToolError::Failed("The answer of the tool is no result.".to_owned()),
        _ => unreachable("the connection was closed before the answer"),
    }
}

fn of_transport(error: &DynamicTransportError) -> ToolError {
    let Some(error) = error.error.downcast_ref::<StreamableHttpError<Error>>() else {
        return unreachable("the session is gone");
    };
    match error {
        StreamableHttpError::Client(error) => ToolError::of_http(error),
        StreamableHttpError::ResponseBodyTooLarge { max_size } => ToolError::TooLarge { limit: *max_size },
        StreamableHttpError::HttpStatus(status) => unreachable(&format!("it answered {status}")),
        StreamableHttpError::AuthRequired(_) => unreachable("it answered HTTP 401"),
        StreamableHttpError::InsufficientScope(_) => unreachable("it answered HTTP 403"),
        // Such as `HTTP 307 Temporary Redirect: <body>`.
        StreamableHttpError::UnexpectedServerResponse(text) => match text.split_once(':') {
            Some((status, _)) if status.starts_with("HTTP ") => unreachable(&format!("it answered {status}")),
            _ => unreachable("its answer is not MCP"),
        },
        StreamableHttpError::UnexpectedContentType(_) => unreachable("its answer is not MCP"),
        _ => unreachable("the session is gone"),
    }
}

/// The limit that `http` puts beside [`TOO_LARGE`].
fn limit_in(error: &ErrorData) -> usize {
    let limit = error.data.as_ref().and_then(serde_json::Value::as_u64);
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or_default()
}

fn message(error: &ErrorData) -> String {
    error.message.chars().take(MAX_MESSAGE_CHARS).collect()
}

fn unreachable(why: &str) -> ToolError {
    ToolError::Unreachable(why.to_owned())
}

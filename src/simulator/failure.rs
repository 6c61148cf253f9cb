//! The failures the simulator answers with, in the error envelope of the contract (§1.6).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A request that gets no answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The body could not be read, or is not the JSON object it must be.
    InvalidBody,
    /// `stream: true` where streaming is not simulated.
    Streaming,
    /// The model is `simulator-fail-400`.
    InvalidModel,
    /// No such route.
    UnknownUrl,
    /// The route has other methods.
    WrongMethod,
    /// The server is full, or the model is `simulator-fail-429`.
    TooManyRequests,
    /// Drawn by chance, or the model is `simulator-fail-500`.
    ServerError,
    /// The server stops.
    ShuttingDown,
}

/// What the envelope says: type, param, code, message.
type Envelope = (&'static str, Option<&'static str>, Option<&'static str>, &'static str);

impl Failure {
    fn status(self) -> StatusCode {
        match self {
            Self::InvalidBody | Self::Streaming | Self::InvalidModel => StatusCode::BAD_REQUEST,
            Self::UnknownUrl => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn envelope(self) -> Envelope {
        let invalid = "invalid_request_error";
        match self {
            Self::InvalidBody => (invalid, None, None, "The body of this request is not a JSON object as it must be."),
            Self::Streaming => {
                (invalid, Some("stream"), Some("unsupported_value"), "The simulator streams chat completions only.")
            }
            Self::InvalidModel => {
                (invalid, Some("model"), Some("invalid_value"), "Invalid value: 'simulator-fail-400' always fails.")
            }
            Self::UnknownUrl => (invalid, None, Some("unknown_url"), "Unknown request URL."),
            Self::WrongMethod => (invalid, None, Some("method_not_supported"), "This URL has other methods."),
            Self::TooManyRequests => {
                ("requests", None, Some("rate_limit_exceeded"), "Rate limit reached. Please try again in 1s.")
            }
            Self::ServerError => ("server_error", None, None, "The server had an error while processing your request."),
            Self::ShuttingDown => ("server_error", None, None, "The server is shutting down."),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (kind, param, code, message) = self.envelope();
        let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": code } });
        let mut response = (self.status(), axum::Json(body)).into_response();
        if self == Self::TooManyRequests {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

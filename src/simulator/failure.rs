//! The failures the simulator answers with, in the error envelope of the contract (§1.6).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::answers::Kind;
use super::conversation::Mispaired;
use super::other_apis;

/// A failure that a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SimulatedFailure {
    /// The body could not be read, or is not the JSON object it must be.
    InvalidBody,
    /// `stream: true` where streaming is not simulated.
    Streaming,
    /// The model is `simulator-fail-400`.
    InvalidModel,
    /// A member of the body that cannot be.
    InvalidMember {
        /// Which.
        param: String,
        /// The code of the error.
        code: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A model that the server does not have.
    UnknownModel(String),
    /// No such route.
    UnknownUrl,
    /// The route does not have this method.
    WrongMethod,
    /// The server is full, or the model is `simulator-fail-429`.
    TooManyRequests,
    /// Drawn by chance, or the model is `simulator-fail-500`.
    ServerError,
    /// The server stops.
    ShuttingDown,
    /// A script asks for this status.
    Scripted(StatusCode),
    /// A script that cannot be read, and why.
    InvalidScript(String),
    /// Calls and outputs of a scripted conversation do not match.
    Mispaired(Mispaired),
    /// A call in a scripted conversation, with this id, has arguments that are not a JSON object.
    InvalidArguments(String),
}

/// The members of the envelope: type, param, code, message.
type Envelope = (&'static str, Option<String>, Option<&'static str>, String);

impl SimulatedFailure {
    /// The failure of a script that asks for `status`.
    pub fn scripted(status: u16) -> Self {
        match StatusCode::from_u16(status) {
            Ok(StatusCode::TOO_MANY_REQUESTS) => Self::TooManyRequests,
            Ok(status) => Self::Scripted(status),
            Err(error) => Self::InvalidScript(error.to_string()),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::InvalidBody
            | Self::Streaming
            | Self::InvalidModel
            | Self::InvalidMember { .. }
            | Self::InvalidScript(_)
            | Self::Mispaired(_)
            | Self::InvalidArguments(_) => StatusCode::BAD_REQUEST,
            Self::UnknownUrl | Self::UnknownModel(_) => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Scripted(status) => *status,
        }
    }

    fn envelope(&self) -> Envelope {
        let kind = match self {
            Self::TooManyRequests => "requests",
            _ if self.status().is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let (param, code, message) = match self {
            Self::InvalidBody => (None, None, "The body of this request is not a JSON object as it must be."),
            Self::Streaming => {
                let message = "The simulator streams chat completions only, and none that are scripted.";
                (Some("stream"), Some("unsupported_value"), message)
            }
            Self::InvalidModel => {
                (Some("model"), Some("invalid_value"), "Invalid value: 'simulator-fail-400' always fails.")
            }
            Self::UnknownUrl => (None, Some("unknown_url"), "Unknown request URL."),
            Self::WrongMethod => (None, Some("method_not_supported"), "This URL has other methods."),
            Self::TooManyRequests => (None, Some("rate_limit_exceeded"), "Rate limit reached. Please try again in 1s."),
            Self::ServerError => (None, None, "The server had an error while processing your request."),
            Self::ShuttingDown => (None, None, "The server is shutting down."),
            Self::Scripted(_) => (None, Some("scripted"), "The script of this request asks for this failure."),
            Self::InvalidMember { param, code, message } => {
                return (kind, Some(param.clone()), Some(*code), message.clone());
            }
            Self::UnknownModel(model) => {
                let message = format!("The model `{model}` does not exist.");
                return (kind, Some("model".to_owned()), Some("model_not_found"), message);
            }
            Self::InvalidScript(reason) => return (kind, None, Some("invalid_script"), reason.clone()),
            Self::Mispaired(mispaired) => return (kind, None, None, mispaired.to_string()),
            Self::InvalidArguments(id) => {
                let message = format!("The arguments of the tool call with id '{id}' are not a JSON object.");
                return (kind, None, None, message);
            }
        };
        (kind, param.map(str::to_owned), code, message.to_owned())
    }
}

impl SimulatedFailure {
    /// The answer to a request of this kind, each in the envelope of its API.
    pub fn answer(self, kind: Kind) -> Response {
        if kind != Kind::Message {
            return self.into_response();
        }
        let (_, _, _, message) = self.envelope();
        self.with_headers(other_apis::error(self.status(), &message))
    }

    fn with_headers(&self, mut response: Response) -> Response {
        if *self == Self::TooManyRequests {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl IntoResponse for SimulatedFailure {
    fn into_response(self) -> Response {
        let (kind, param, code, message) = self.envelope();
        let body = json!({ "error": { "message": message, "type": kind, "param": param, "code": code } });
        self.with_headers((self.status(), axum::Json(body)).into_response())
    }
}

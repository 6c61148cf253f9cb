//! Errors, in OpenAI's envelope (contract §1.6 and §1.7).

mod limit_errors;
mod storage_errors;

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::server::BodyCut;
use crate::domain::api_key::KeyScope;
use crate::domain::row::shown;

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorObject,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorObject {
    /// For people.
    pub message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The parameter at fault, as a dotted path.
    #[schema(required)]
    pub param: Option<String>,
    /// For programs.
    #[schema(required)]
    pub code: Option<&'static str>,
}

/// An answer that is an error.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    object: ErrorObject,
    retry: RetryAdvice,
}

/// The advice to clients whether to retry (contract §10.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryAdvice {
    /// No advice: clients decide by the status.
    ByStatus,
    /// Not at all.
    Never,
    /// After a second.
    Soon,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: String) -> Self {
        Self { status, object: ErrorObject { message, kind, param: None, code: None }, retry: RetryAdvice::ByStatus }
    }

    /// 400: the request is at fault.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message.into())
    }

    /// 400: a required parameter is absent.
    #[must_use]
    pub fn missing(param: &str) -> Self {
        Self::invalid(format!("Missing required parameter: '{param}'.")).at(param).code("missing_required_parameter")
    }

    /// 400: a parameter has another JSON type than it must have. Both types have their article.
    #[must_use]
    pub fn wrong_type(param: &str, expected: &str, got: &str) -> Self {
        let message = format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        Self::invalid(message).at(param).code("invalid_type")
    }

    /// 400: a parameter is none of the values it may have.
    #[must_use]
    pub fn wrong_value(param: &str, value: &str, supported: &[&str]) -> Self {
        let value = shown(value);
        let message = format!("Invalid value: '{value}'. Supported values are: {}.", listed(supported));
        Self::invalid(message).at(param).code("invalid_value")
    }

    /// 400: an integer above its bounds, as it was given.
    #[must_use]
    pub fn above_maximum(param: &str, value: &str, max: i64) -> Self {
        let value = shown(value);
        let message = format!(
            "Invalid '{param}': integer above maximum value. Expected a value <= {max}, but got {value} instead."
        );
        Self::invalid(message).at(param).code("integer_above_max_value")
    }

    /// 400: an integer below its bounds, as it was given.
    #[must_use]
    pub fn below_minimum(param: &str, value: &str, min: i64) -> Self {
        let value = shown(value);
        let message = format!(
            "Invalid '{param}': integer below minimum value. Expected a value >= {min}, but got {value} instead."
        );
        Self::invalid(message).at(param).code("integer_below_min_value")
    }

    /// 401: the call needs a key and has none.
    #[must_use]
    pub fn missing_key() -> Self {
        let message = "Missing bearer authentication in header. Send your API key as 'Authorization: Bearer KEY'.";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message.to_owned())
    }

    /// 401: no such key, or a revoked one. `masked`: what may be shown of it.
    #[must_use]
    pub fn incorrect_key(masked: &str) -> Self {
        let message = format!(
            "Incorrect API key provided: {masked}. The operator of this server can make you one with `batchwright keys \
             create`."
        );
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code("invalid_api_key")
    }

    /// 403: the key does not allow this.
    #[must_use]
    pub fn missing_scope(needed: KeyScope) -> Self {
        let message = format!(
            "You have insufficient permissions for this operation. Your API key does not have the scope '{needed}'."
        );
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message)
    }

    /// 403: the call is refused whoever makes it.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", message.into())
    }

    /// 404: the object does not exist, or is not the client's.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message.into())
    }

    /// 405: the path does not have this method.
    #[must_use]
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message.into())
    }

    /// 413: the request has more than a request may have.
    #[must_use]
    pub fn request_too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message.into())
    }

    /// 408: the client stopped sending in the middle of a request.
    #[must_use]
    pub fn too_slow(limit: Duration) -> Self {
        let message = format!(
            "The body of the request stopped: too little of it came within {} seconds. Please send it again.",
            limit.as_secs()
        );
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// 409: the state of the object forbids it, and will not change: SDKs are told not to retry.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::CONFLICT, "invalid_request_error", message.into());
        error.retry = RetryAdvice::Never;
        error
    }

    /// 414: the path and the query are too long.
    #[must_use]
    pub fn uri_too_long() -> Self {
        let message = "The URL is too long: its path and its query may have 32 KiB together.".to_owned();
        Self::new(StatusCode::URI_TOO_LONG, "invalid_request_error", message)
    }

    /// 415: the request is in a form that is not understood.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message.into())
    }

    /// 416: the file does not have the range asked for.
    #[must_use]
    pub fn no_such_range(length: u64) -> Self {
        let message = format!("The file has {length} bytes, and none in the range asked for.");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_request_error", message)
    }

    /// 431: the request line and the headers are too large.
    #[must_use]
    pub fn head_too_large() -> Self {
        let message =
            "The request has too many headers, or too large ones: at most 100, and 128 KiB with the request line.";
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "invalid_request_error", message.to_owned())
    }

    /// 500: a fault of this program.
    #[must_use]
    pub fn internal() -> Self {
        let message = "The server had an error while processing your request. Its log has the details.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message.to_owned())
    }

    /// 500: a handler panicked. The log names the request by this id.
    #[must_use]
    pub fn panicked(request_id: &str) -> Self {
        let message = format!(
            "The server had an error while processing your request. Its log has the details of request {request_id}."
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// 502: the inference server is at fault.
    #[must_use]
    pub fn bad_upstream(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "server_error", message.into())
    }

    /// 503: the storage does not answer; a retry may succeed.
    #[must_use]
    pub fn unavailable() -> Self {
        let message = "The server's storage does not answer. Please try again.".to_owned();
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        error.retry = RetryAdvice::Soon;
        error
    }

    /// 503: too many uploads are running.
    #[must_use]
    pub fn too_many_uploads() -> Self {
        let mut error = Self::unavailable();
        "The server is taking in as many uploads as it can. Please try again.".clone_into(&mut error.object.message);
        error
    }

    /// 503: too many clients wait for results.
    #[must_use]
    pub fn too_many_waits() -> Self {
        let mut error = Self::unavailable();
        "As many clients as the server can bear wait for results or events. Please try again, or ask without 'wait'."
            .clone_into(&mut error.object.message);
        error
    }

    /// 503: too many answers are in the order of the input.
    #[must_use]
    pub fn too_many_orders() -> Self {
        let mut error = Self::unavailable();
        "The server sends as many results in the order of the input as it can. Please try again."
            .clone_into(&mut error.object.message);
        error
    }

    /// 507: the disk is full.
    #[must_use]
    pub fn storage_full() -> Self {
        let message = "The server's disk is full. Please try again once its operator has made room.".to_owned();
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "server_error", message)
    }

    /// 503: the data directory is gone, so nothing can be stored.
    #[must_use]
    pub fn storage_gone() -> Self {
        let message = "The server's data directory is gone, so that nothing can be kept. Its operator must bring it \
                       back or start the server again.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message.to_owned())
    }

    /// 503: the service is stopping. Another replica, or the same one after its restart, can take the request.
    #[must_use]
    pub fn stopping() -> Self {
        let mut error = Self::unavailable();
        "The server is stopping and takes no more uploads. Please try again.".clone_into(&mut error.object.message);
        error
    }

    /// The answer to a request whose body was cut off.
    pub(super) fn cut(cut: BodyCut) -> Self {
        match cut {
            BodyCut::Silent(limit) => Self::too_slow(limit),
            BodyCut::Stopping => Self::stopping(),
        }
    }

    /// The status and the body, for answers that do not come from a handler.
    pub(super) fn into_json(self) -> (StatusCode, String) {
        let body = serde_json::to_string(&ErrorBody { error: self.object }).expect("texts serialise");
        (self.status, body)
    }

    #[cfg(test)]
    pub(super) fn object(&self) -> &ErrorObject {
        &self.object
    }

    /// Names the parameter at fault.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.object.param = Some(param.to_owned());
        self
    }

    /// Adds the code for programs.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.object.code = Some(code);
        self
    }
}

/// `'a', 'b', and 'c'`
fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
    match &quoted[..] {
        [] => String::new(),
        [only] => only.clone(),
        [first, second] => format!("{first} and {second}"),
        [most @ .., last] => format!("{}, and {last}", most.join(", ")),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.object.clone() })).into_response();
        // For APIs that have another envelope.
        response.extensions_mut().insert(self.object);
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"batchwright\""));
        }
        match self.retry {
            RetryAdvice::ByStatus => {}
            RetryAdvice::Never => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            RetryAdvice::Soon => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(listed(&["a"]), "'a'");
        assert_eq!(listed(&["a", "b"]), "'a' and 'b'");
        assert_eq!(listed(&["a", "b", "c"]), "'a', 'b', and 'c'");
    }

    #[test]
    fn the_envelope_has_all_four_keys() {
        let body = ErrorBody { error: ApiError::not_found("gone").object };

        assert_eq!(
            serde_json::to_string(&body).expect("JSON"),
            r#"{"error":{"message":"gone","type":"invalid_request_error","param":null,"code":null}}"#
        );
    }
}

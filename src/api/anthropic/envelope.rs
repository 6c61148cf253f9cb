//! Errors in Anthropic's envelope, and the header that has the id of a request there.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ErrorObject;

/// What the paths of all operations begin with.
const ROUTES: &str = "/v1/messages/batches";

static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The body of every answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessagesErrorBody {
    /// Always `error`.
    #[serde(rename = "type")]
    object: &'static str,
    error: MessagesErrorObject,
    /// The id of the request, if there was one.
    #[schema(required)]
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessagesErrorObject {
    /// The kind of error, such as `invalid_request_error`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// For people.
    message: String,
}

impl MessagesErrorBody {
    /// The error that an answer with a status stands for.
    pub(super) fn new(status: u16, message: String, request_id: Option<String>) -> Self {
        Self { object: "error", error: MessagesErrorObject { kind: kind(status), message }, request_id }
    }
}

/// The kind of the errors that come with a status.
fn kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// Puts errors of these routes into the envelope, those of who may not call them too, and names the request as
/// Anthropic's clients expect it.
pub(in crate::api) async fn with_envelope(request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(ROUTES) {
        return next.run(request).await;
    }
    let id = request.headers().get(&X_REQUEST_ID).cloned();
    let response = next.run(request).await;
    let mut response = match response.extensions().get::<ErrorObject>() {
        None => response,
        Some(error) => {
            let shown_id = id.as_ref().and_then(|id| id.to_str().ok()).map(str::to_owned);
            enveloped(response.status(), error.message.clone(), shown_id, &response)
        }
    };
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}

/// The same answer with another body.
fn enveloped(status: StatusCode, message: String, request_id: Option<String>, old: &Response) -> Response {
    let body = MessagesErrorBody::new(status.as_u16(), message, request_id);
    let mut response = (status, Json(body)).into_response();
    let own = [header::CONTENT_TYPE, header::CONTENT_LENGTH];
    for (name, value) in old.headers().iter().filter(|(name, _)| !own.contains(name)) {
        response.headers_mut().append(name, value.clone());
    }
    response
}

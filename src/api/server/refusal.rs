//! Requests that hyper refuses before any handler sees them. hyper answers with an empty body, which is replaced here.

use axum::body::Bytes;

use crate::api::ApiError;
use crate::api::router::fresh_request_id;

/// The response with the envelope, if `written` is a refusal of hyper's own.
///
/// Must be called only while no request is being answered: otherwise `written` could be the bytes of a file.
pub(super) fn instead_of(written: &[u8]) -> Option<Bytes> {
    let head = str::from_utf8(written).ok()?.strip_prefix("HTTP/1.1 ")?;
    let error = match head.get(..3)? {
        "400" => ApiError::invalid(
            "The request is not valid HTTP/1.1: its request line or one of its headers cannot be read.",
        ),
        "414" => ApiError::uri_too_long(),
        "431" => ApiError::head_too_large(),
        _ => return None,
    };
    let (status, body) = error.into_json();
    let date = head.lines().find(|line| line.starts_with("date: "))?;
    let (length, id) = (body.len(), fresh_request_id());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\
         x-content-type-options: nosniff\r\ncache-control: no-store\r\nx-request-id: {id}\r\n{date}\r\n\r\n{body}"
    );
    Some(answer.into())
}

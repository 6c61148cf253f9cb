//! Requests that hyper refuses before any handler sees them: it answers with an empty body, which is replaced here.

use axum::body::Bytes;

use crate::api::ApiError;
use crate::api::router::fresh_request_id;

/// The answer in the envelope, if `written` is one that hyper made by itself.
///
/// Only asked while no request is being answered, so that these are not the bytes of anybody's file.
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
         x-request-id: {id}\r\n{date}\r\n\r\n{body}"
    );
    Some(answer.into())
}

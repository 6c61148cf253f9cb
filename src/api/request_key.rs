//! The header `Idempotency-Key` of requests that create something.

use axum::http::HeaderMap;

use super::{ApiError, App};
use crate::domain::owner::Owner;
use crate::domain::request_key::{Fingerprint, RequestKey};
use crate::net::IDEMPOTENCY_KEY;

const MAX_LENGTH: usize = 255;

/// The key of a request, if it has one.
pub(super) fn key_in(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_LENGTH);
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        ApiError::invalid(format!("The Idempotency-Key must be 1 to {MAX_LENGTH} printable ASCII characters."))
    })
}

/// The key of a request of this kind, which asks for what `pieces` say.
pub(super) fn request_key(headers: &HeaderMap, kind: &str, pieces: &[&[u8]]) -> Result<Option<RequestKey>, ApiError> {
    let Some(key) = key_in(headers)? else { return Ok(None) };
    let mut fingerprint = Fingerprint::of(kind);
    for piece in pieces {
        fingerprint.add(piece);
    }
    Ok(Some(RequestKey { key, fingerprint: fingerprint.finish() }))
}

/// The id of the object that an earlier request with the same key has made. It is an error if that request asked for
/// something else.
pub(super) async fn made_before(
    app: &App,
    owner: &Owner,
    key: Option<&RequestKey>,
) -> Result<Option<String>, ApiError> {
    let Some(RequestKey { key, fingerprint }) = key else { return Ok(None) };
    match app.storage.key_use(owner, key, app.clock.now()).await? {
        None => Ok(None),
        Some(known) if known.fingerprint == *fingerprint => Ok(Some(known.object)),
        Some(_) => Err(key_reused()),
    }
}

/// The refusal of a key whose object is not there any more.
pub(super) fn object_gone(id: &str) -> ApiError {
    refused(format!(
        "The Idempotency-Key was used before, for '{id}', which was deleted or has expired. Use a fresh key to make \
         another one."
    ))
}

/// The refusal of a key that was used for another request.
pub(super) fn key_reused() -> ApiError {
    refused("The Idempotency-Key was used before, for another request. Use a fresh key for this one.".to_owned())
}

fn refused(message: String) -> ApiError {
    ApiError::conflict(message).code("idempotency_key_reused")
}

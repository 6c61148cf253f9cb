//! axum's extractors, whose errors are in the envelope instead of plain text.

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::ApiError;
use super::content_coding::{refuse_packed, unreadable};
use super::router::JSON_BODY_BYTES;

/// The one parameter of a path, or a tuple of all its parameters.
pub(crate) struct Id<T = String>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // The parameters are texts, so the only possible error is one that is not UTF-8.
        let id = Path::<T>::from_request_parts(parts, state).await;
        id.map(|Path(id)| Self(id))
            .map_err(|_| ApiError::invalid("Invalid URL: what its path names is not UTF-8 once it is percent-decoded."))
    }
}

/// A body that is held in memory whole, within the limit of its route.
pub(super) struct WholeBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        refuse_packed(request.headers())?;
        let too_large = || ApiError::invalid("The body of the request is too large: it may have 1 MiB.");
        // Reading a byte would tell a client that waits for `100 Continue` to send it all.
        if request.body().size_hint().lower() > JSON_BODY_BYTES as u64 {
            return Err(too_large());
        }
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                return too_large();
            }
            unreadable(&rejection)
        })
    }
}

//! `Content-Encoding` of requests: bodies that are compressed (RFC 9110, section 8.4).

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::ApiError;
use crate::causes::causes;
use crate::domain::row::shown;
use crate::intake::{Packing, UnpackError, unpacked};

/// The bytes of a body, unpacked.
pub(super) fn decoded(
    headers: &HeaderMap,
    body: Body,
) -> Result<BoxStream<'static, Result<Bytes, axum::Error>>, ApiError> {
    let bytes = body.into_data_stream();
    let Some(coding) = headers.get(header::CONTENT_ENCODING) else { return Ok(bytes.boxed()) };
    let coding = String::from_utf8_lossy(coding.as_bytes());
    if coding.trim().eq_ignore_ascii_case("identity") {
        return Ok(bytes.boxed());
    }
    let packing = Packing::named(&coding).ok_or_else(|| {
        let coding = shown(&coding);
        ApiError::unsupported(format!("The Content-Encoding '{coding}' is not supported: send gzip or zstd."))
    })?;
    Ok(unpacked(bytes, Some(packing)).map_err(axum::Error::new).boxed())
}

/// The error of a body that could not be unpacked, if that is behind an error.
pub(super) fn damaged(error: &(dyn std::error::Error + 'static)) -> Option<ApiError> {
    let unpacking = causes(error).find_map(|cause| cause.downcast_ref::<UnpackError<axum::Error>>())?;
    match unpacking {
        UnpackError::Stream(_) => None,
        other => Some(ApiError::invalid(other.to_string())),
    }
}

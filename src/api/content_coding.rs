//! Bodies that are compressed (RFC 9110, section 8.4): of requests by their `Content-Encoding`, of downloads if the
//! client accepts zstd.

use std::io;

use async_compression::Level;
use async_compression::tokio::bufread::ZstdEncoder;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::io::{ReaderStream, StreamReader};

use super::ApiError;
use super::server::BodyCut;
use crate::causes::causes;
use crate::domain::row::shown;
use crate::intake::{Packing, UnpackError, unpacked};

/// Bytes that are packed at once.
const CHUNK: usize = 64 << 10;
/// Smaller bodies are sent as they are.
const WORTHWHILE: u64 = 1 << 10;

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

/// The bytes of a body, unpacked, of which there may be so many. What is unpacked comes at once, so whoever reads it
/// makes room for others after each piece.
pub(super) fn decoded_within(
    headers: &HeaderMap,
    body: Body,
    most: u64,
) -> Result<BoxStream<'static, Result<Bytes, axum::Error>>, ApiError> {
    let mut read = 0_u64;
    let counted = decoded(headers, body)?.and_then(move |chunk| {
        read += chunk.len() as u64;
        let is_too_large = read > most;
        async move {
            tokio::task::yield_now().await;
            if is_too_large { Err(axum::Error::new(BodyTooLarge { most })) } else { Ok(chunk) }
        }
    });
    Ok(counted.boxed())
}

/// A body has more bytes than it may have.
#[derive(Debug, thiserror::Error)]
#[error("The body of the request is too large: unpacked, it may have {most} bytes.")]
struct BodyTooLarge {
    most: u64,
}

/// The error of a body that could not be unpacked, if that is behind an error.
pub(super) fn damaged(error: &(dyn std::error::Error + 'static)) -> Option<ApiError> {
    let unpacking = causes(error).find_map(|cause| cause.downcast_ref::<UnpackError<axum::Error>>())?;
    match unpacking {
        UnpackError::Stream(_) => None,
        other => Some(ApiError::invalid(other.to_string())),
    }
}

/// The refusal of a body that is compressed, where none is unpacked.
pub(super) fn refuse_packed(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity") => {
            Err(ApiError::unsupported("A Content-Encoding is not supported here: send the body as it is.".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Why a body was not read to its end.
pub(super) fn unreadable(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let cut = || BodyCut::behind(error).map(ApiError::cut);
    let other = || ApiError::invalid("The body of the request cannot be read.");
    let large = || causes(error).find_map(|cause| cause.downcast_ref::<BodyTooLarge>());
    let too_large = || large().map(|large| ApiError::request_too_large(large.to_string()));
    damaged(error).or_else(cut).or_else(too_large).unwrap_or_else(other)
}

/// Whether a client accepts zstd. Gzip is not offered: the SDKs ask for it by themselves, and it takes 2 s of a core
/// for 100 MB of results, where zstd takes half a second.
pub(super) fn accepts_zstd(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused =
            quality.trim().strip_prefix("q=").is_some_and(|quality| quality.trim_matches(['0', '.']).is_empty());
        name.trim().eq_ignore_ascii_case("zstd") && !is_refused
    })
}

/// The entity tag of the packed form of a download.
pub(super) fn packed_tag(tag: &HeaderValue) -> HeaderValue {
    let text = tag.to_str().expect("tags are printable ASCII").trim_end_matches('"');
    HeaderValue::try_from(format!("{text}-zstd\"")).expect("it was printable ASCII")
}

/// A download, packed if the client accepts it and all of it is sent.
pub(super) fn packed(request: &HeaderMap, mut response: Response) -> Response {
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let is_whole = response.status() == StatusCode::OK;
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if !is_whole || !accepts_zstd(request) || length.is_none_or(|length: u64| length < WORTHWHILE) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let plain = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let encoder = ZstdEncoder::with_quality(plain, Level::Fastest);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    // Neither the length nor any range is that of the packed bytes.
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::ACCEPT_RANGES);
    if let Some(tag) = parts.headers.get(header::ETAG).map(packed_tag) {
        parts.headers.insert(header::ETAG, tag);
    }
    Response::from_parts(parts, Body::from_stream(ReaderStream::with_capacity(encoder, CHUNK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_is_accepted_if_it_is_named_and_not_refused() {
        let cases = [
            ("gzip, deflate", false),
            ("zstd", true),
            ("gzip;q=1.0, ZSTD;q=0.1", true),
            ("gzip, zstd;q=0.000", false),
            ("zstd;q=0", false),
            ("*", false),
        ];
        for (text, expected) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(text))]);
            assert_eq!(accepts_zstd(&headers), expected, "{text}");
        }
    }
}

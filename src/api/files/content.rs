//! `GET /v1/files/{file_id}/content` (contract §4.3).

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::{Stream, TryStreamExt as _};

use super::find;
use super::range::{RequestedRange, requested_range};
use super::validators::{entity_tag, is_known, ranges_apply};
use crate::api::caller::Caller;
use crate::api::content_coding::{packed, packed_tag};
use crate::api::extract::Id;
use crate::api::{ApiError, App, AppState};
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::storage::ReadError;
use crate::storage::blobs::FileBytes;
use crate::telemetry::chain;

/// Only the client itself may keep a file, and asks by the `ETag` whether it is still there.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Downloads a file, or the part of it that a `Range` header asks for. `If-None-Match` and `If-Range` are honoured.
/// A whole file is sent as zstd if `Accept-Encoding` names it.
#[utoipa::path(get, path = "/v1/files/{file_id}/content", tag = "files", params(("file_id" = String, Path,)), responses(
    (status = 200, description = "The bytes", content_type = "application/octet-stream"),
    (status = 206, description = "The bytes of the range asked for", content_type = "application/octet-stream"),
    (status = 304, description = "The client has the file: `If-None-Match` names its `ETag`"),
    (status = 404, body = crate::api::error::ErrorBody),
    (status = 416, description = "The file has no such range", body = crate::api::error::ErrorBody)
))]
pub(crate) async fn file_content(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let file = find(&app, &owner, &id).await?;
    let bytes = FileBytes::new(app.storage.file_parts(&owner, file.id).await?);
    let length = bytes.len();
    let tag = entity_tag(&file.id, length);
    let packed_tag = packed_tag(&tag);
    for tag in [&tag, &packed_tag] {
        if is_known(&headers, tag) {
            return Ok(
                (StatusCode::NOT_MODIFIED, [(header::ETAG, tag), (header::CACHE_CONTROL, &REVALIDATE)]).into_response()
            );
        }
    }
    let range = headers.get(header::RANGE).filter(|_| ranges_apply(&headers, &tag));
    let (status, range) = match requested_range(range.and_then(|range| range.to_str().ok()), length) {
        RequestedRange::Whole => (StatusCode::OK, 0..length),
        RequestedRange::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        RequestedRange::Unsatisfiable => {
            let none = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((none, ApiError::no_such_range(length)).into_response());
        }
    };
    let mut response = Response::new(Body::from_stream(stream(app.clone(), owner, file.id, &bytes, range.clone())));
    *response.status_mut() = status;
    let (request, headers) = (&headers, response.headers_mut());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(header::ETAG, tag);
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&file.filename));
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(text).expect("digits"));
    }
    Ok(packed(request, response))
}

/// Streams the bytes of a range. After an error the stream ends early: the client sees that the body is too short, and
/// the log says why.
fn stream(
    app: Arc<App>,
    owner: Owner,
    id: FileId,
    bytes: &FileBytes,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, ReadError>> + use<> {
    let blobs = app.blobs.clone();
    let parts_now = move || {
        let (app, owner) = (app.clone(), owner.clone());
        async move { app.storage.file_parts(&owner, id).await }
    };
    bytes.stream_while_merged(&blobs, range, parts_now).inspect_err(move |error| {
        // The causes name the blob.
        tracing::error!(file_id = %id, error = chain(error), "a download broke off");
    })
}

/// `attachment; filename="…"`, and `filename*` (RFC 6266) for a name that is not plain ASCII.
fn disposition(filename: &str) -> HeaderValue {
    let plain: String = filename
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' })
        .collect();
    let mut text = format!("attachment; filename=\"{plain}\"");
    if plain != filename {
        text.push_str("; filename*=UTF-8''");
        for byte in filename.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                text.push(char::from(byte));
            } else {
                write!(text, "%{byte:02X}").expect("a String takes all");
            }
        }
    }
    HeaderValue::try_from(text).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filenames_cannot_break_out_of_the_header() {
        assert_eq!(disposition("a b.jsonl"), "attachment; filename=\"a b.jsonl\"");
        assert_eq!(disposition("é\"\r\nx"), "attachment; filename=\"____x\"; filename*=UTF-8''%C3%A9%22%0D%0Ax");
    }
}

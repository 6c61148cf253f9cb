//! Result lines as a page, which waits for the first one if the client wishes.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures::TryStreamExt as _;

use super::reader::{FoundResults, ResultReader};
use super::{HAS_ENDED, NDJSON, NEXT_CURSOR, log_break};
use crate::api::ApiError;
use crate::domain::result_cursor::ResultCursor;

/// Answers with the lines behind a cursor.
pub(super) async fn answer(
    mut reader: ResultReader,
    from: ResultCursor,
    limit: Option<u64>,
    wait: Duration,
) -> Result<Response, ApiError> {
    let waits = reader.app.waits.clone();
    let _permit = match wait {
        Duration::ZERO => None,
        _ => Some(waits.try_acquire().map_err(|_| ApiError::too_many_waits())?),
    };
    let FoundResults { batch, lines, has_ended } = reader.next(from, limit, wait).await?;
    let Some((files, page)) = lines else { return Ok(response(Body::empty(), 0, from, has_ended)) };
    let lines = files.lines(&page).inspect_err(move |error| log_break(batch.id, error));
    Ok(response(Body::from_stream(lines), page.bytes(), page.next, has_ended))
}

/// An answer with lines: how many bytes they have, the cursor behind them, and whether they are the last.
pub(super) fn response(lines: Body, bytes: u64, next: ResultCursor, has_ended: bool) -> Response {
    let mut response = Response::new(lines);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NEXT_CURSOR, HeaderValue::try_from(next.to_string()).expect("digits"));
    headers.insert(HAS_ENDED, HeaderValue::from_static(if has_ended { "true" } else { "false" }));
    response
}

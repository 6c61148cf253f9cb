//! Answers that are pages, and pages that say what went wrong.

use std::hash::{BuildHasher as _, Hasher as _};

use askama::Template;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::view::Layout;
use crate::storage::blobs::BlobError;
use crate::storage::{ReadError, StorageError};
use crate::telemetry::chain;

/// A hash of bytes that is the same in every process of a version.
pub(super) fn fingerprint(bytes: &[u8]) -> String {
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    hasher.write(bytes);
    format!("{:016x}", hasher.finish())
}

/// A page, or 304 if the browser has it: a page that is polled is often what it was.
pub(super) fn page(template: &impl Template, request: &HeaderMap) -> Result<Response, PageError> {
    let html = template.render().map_err(|error| {
        tracing::error!(error = chain(&error), "a page could not be made");
        PageError::internal()
    })?;
    let tag = HeaderValue::try_from(format!("\"{}\"", fingerprint(html.as_bytes()))).expect("hexadecimal digits");
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::ETAG, tag.clone()),
    ];
    if request.get_all(header::IF_NONE_MATCH).iter().any(|known| *known == tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, html).into_response())
}

/// Why there is no page.
#[derive(Debug)]
pub(super) struct PageError {
    status: StatusCode,
    message: String,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    layout: Layout,
    status: StatusCode,
    message: &'a str,
}

impl PageError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn internal() -> Self {
        let message = "The page could not be made. The log of the server says why.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let problem = Problem { layout: Layout::of("problem", "Problem"), status: self.status, message: &self.message };
        match page(&problem, &HeaderMap::new()) {
            Ok(mut response) => {
                *response.status_mut() = self.status;
                response
            }
            Err(_) => (self.status, self.message).into_response(),
        }
    }
}

impl From<StorageError> for PageError {
    fn from(error: StorageError) -> Self {
        tracing::error!(error = chain(&error), "the storage failed");
        match error {
            error if error.is_outage() => {
                let message = "The storage does not answer. This page comes back by itself once it does.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
            }
            _ => Self::internal(),
        }
    }
}

impl From<BlobError> for PageError {
    fn from(error: BlobError) -> Self {
        tracing::error!(error = chain(&error), "the blob store failed");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The blob store does not answer, or has lost what was asked for.")
    }
}

impl From<ReadError> for PageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Storage(error) => error.into(),
            ReadError::Blob(error) => error.into(),
        }
    }
}

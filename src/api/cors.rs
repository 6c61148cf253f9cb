//! Cross-origin resource sharing: which web pages may call the API from a browser. Without allowed origins, none may.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// Response headers that a page may read, besides those that every page may.
const EXPOSED: [HeaderName; 9] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-should-retry"),
    super::batches::NEXT_CURSOR,
    super::batches::HAS_ENDED,
    header::RETRY_AFTER,
    header::ACCEPT_RANGES,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::ETAG,
];
/// How long browsers may keep the answer to a preflight request.
const MAX_AGE: Duration = Duration::from_mins(10);

/// The layer that lets pages of these origins call the API; `*` is every origin.
pub(super) fn cors(origins: &[String]) -> CorsLayer {
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().map(|origin| HeaderValue::from_str(origin).expect("origins are ASCII")))
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        // Every header that the page wants to send: the SDKs add a dozen that describe themselves.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED)
        .max_age(MAX_AGE)
}

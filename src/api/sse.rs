//! Server-sent events. Written here, because axum's own events hold their whole data, and a result line may be long.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use futures::TryStream;

/// How long a stream is silent at most, so that nothing on the way takes the connection for a dead one.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

const EVENT_STREAM: &str = "text/event-stream";
/// Tells nginx not to hold events back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Whether the client asks for events.
pub(super) fn are_asked_for(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|list| list.split(','))
        .any(|one| one.split(';').next().is_some_and(|one| one.trim() == EVENT_STREAM))
}

/// An event whose data is one line.
pub(super) fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// What is sent when there is no event.
pub(super) fn comment() -> Bytes {
    Bytes::from_static(b":\n\n")
}

/// The answer that has these events.
pub(super) fn response<S>(events: S) -> Response
where
    S: TryStream<Ok = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

//! The audit log: one line for each call that may change something, at the target `audit`.
//!
//! It tells who has done what, and never a key, a prompt or an answer.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use tower_http::request_id::RequestId;

use crate::api::Caller;
use crate::domain::row::shown;

/// The log target.
const TARGET: &str = "audit";

/// The id of the object that a call has made. A handler adds it to its answer.
#[derive(Debug, Clone)]
pub(crate) struct ObjectId(pub(crate) String);

/// A call that may change something, before it is answered.
pub(crate) struct AuditedCall {
    method: Method,
    route: Option<String>,
    object: Option<String>,
    peer: Option<String>,
    request_id: Option<String>,
}

impl AuditedCall {
    /// What the log will tell of a request. None of one that only reads.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        let extensions = request.extensions();
        let route = extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let object = route.as_deref().and_then(|route| named_object(route, request.uri().path()));
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.to_string());
        let request_id =
            extensions.get::<RequestId>().and_then(|id| id.header_value().to_str().ok().map(str::to_owned));
        Some(Self { method: request.method().clone(), route, object, peer, request_id })
    }

    /// Writes the line of a call that was answered. `caller`: on whose behalf, if that was found out.
    pub(crate) fn log(self, caller: Option<&Caller>, response: &Response) {
        let Self { method, route, object, peer, request_id } = self;
        let made = response.extensions().get::<ObjectId>().map(|made| made.0.clone());
        let key_id = caller.and_then(|caller| caller.key).map(|key| key.to_string());
        tracing::info!(
            target: TARGET,
            key_id,
            project = caller.map(|caller| caller.owner.as_str()),
            method = method.as_str(),
            route,
            object_id = made.or(object),
            peer,
            status = response.status().as_u16(),
            request_id,
            "call"
        );
    }
}

/// The segment of a path that stands for the first parameter of its route.
fn named_object(route: &str, path: &str) -> Option<String> {
    let place = route.split('/').position(|segment| segment.starts_with('{'))?;
    path.split('/').nth(place).map(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_a_call_is_the_first_that_its_path_names() {
        let cases = [
            ("/v1/files/{file_id}", "/v1/files/file-1", Some("file-1")),
            ("/v1/batches/{batch_id}/cancel", "/v1/batches/batch_1/cancel", Some("batch_1")),
            ("/v1/batches/{batch_id}/requests/{custom_id}", "/v1/batches/batch_1/requests/a", Some("batch_1")),
            ("/v1/files", "/v1/files", None),
        ];
        for (route, path, object) in cases {
            assert_eq!(named_object(route, path).as_deref(), object, "{route}");
        }
    }
}

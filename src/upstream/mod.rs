//! Inference servers: which there are, what is known of each, and how they are called.
//!
//! | part | what is in it |
//! |---|---|
//! | `registry` | the servers, and how many calls all of them together may have under way |
//! | `route` | which server a model's next call goes to |
//! | `served_models` | which models a server has, and by which names |
//! | `model_list` | the list of all models, for clients |
//! | `warnings` | what operators should know of the servers |
//! | `model_name` | the server's name for a model, written into a body |
//! | `body_priority` | the priority that a server is to give its requests, written into a body |
//! | `server` | one server: its settings (`server_settings`), its client (`server_client`), its admissions, its own metrics (`server::queue_metrics`), whether it has `/v1/responses`, and which software it is (`server_software`) |
//! | `admission` | whether a model's calls may be sent now, and how many: refusals, outages and rate limits |
//! | `session` | the client of one row: every call is made with the row's permit |
//! | `dialect` | the two APIs that a model can be called through for a turn |
//! | `row_headers` | the headers that say which row a call is for |
//! | `streamed` | calls whose answers come bit by bit, put together into the ordinary object |
//! | `merged` | embeddings of several rows in one call |
//! | `http` | the client over HTTP, and the one budget of bytes for all answers |

pub mod admission;
mod answer_budget;
mod body_priority;
pub mod dialect;
mod form;
mod http;
pub mod limiter;
mod merged;
mod model_list;
mod model_name;
mod registry;
mod responses_api;
mod route;
mod row_headers;
mod served_models;
mod server;
mod server_client;
mod server_settings;
mod server_software;
mod session;
mod streamed;
mod warnings;

pub use admission::{Admission, CallHistory, GivenRates, LoneEntry};
pub use http::{ReqwestHttpClient, UpstreamSettings};
pub use model_list::{listed_model, model_list};
pub use registry::Registry;
pub use responses_api::{BELIEVED_FOR, ResponsesApi};
pub use route::{Route, RouteUse, Routes};
pub use row_headers::RowHeaders;
pub use served_models::GivenModels;
pub use server::Server;
pub use server_settings::ServerSettings;
pub use session::{PermitObserver, Session, SessionStart};

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::{FailureReason, HttpResponse};
use crate::domain::request::RequestData;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No answer in time.
    #[error("The upstream did not answer in time: {0}.")]
    Timeout(String),
    /// No connection was made.
    #[error("The upstream could not be reached: {0}.")]
    Unreachable(String),
    /// The connection broke before the answer was complete.
    #[error("The connection to the upstream broke: {0}.")]
    Broken(String),
    /// The upstream answered that it takes no calls now, or takes none at all: why.
    #[error("The upstream takes no calls: {0}.")]
    Unavailable(String),
    /// No call was made, because the upstream takes none: why.
    #[error("The upstream takes no calls: {0}.")]
    HeldBack(String),
    /// The answer is larger than this program holds.
    #[error("The upstream's answer is larger than {limit} bytes.")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
}

/// One call: what is sent where.
#[derive(Debug, Clone)]
pub struct Call {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The model that the body names: the call goes to a server that has it. May be empty.
    pub model: Arc<str>,
    /// What tells the upstream that two calls are one: `Idempotency-Key`.
    pub key: String,
    /// The body, sent byte for byte.
    pub body: Bytes,
    /// A file. With one, a form is sent, whose fields are the members of the body.
    pub file: Option<CallFile>,
}

/// A file that goes with a call.
#[derive(Debug, Clone)]
pub struct CallFile {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its media type, such as `audio/wav`.
    pub media_type: String,
    /// Its name, by which some servers tell its format.
    pub name: String,
}

impl From<&RequestData> for Call {
    /// The one call of a request that takes no more.
    fn from(request: &RequestData) -> Self {
        let RequestData { endpoint, id, model, body, .. } = request;
        Self { endpoint: *endpoint, model: model.clone(), key: id.to_string(), body: body.clone(), file: None }
    }
}

impl From<UpstreamError> for FailureReason {
    fn from(error: UpstreamError) -> Self {
        let text = error.to_string();
        match error {
            UpstreamError::Timeout(_) => Self::UpstreamTimeout(text),
            UpstreamError::Unreachable(_) => Self::UpstreamUnreachable(text),
            UpstreamError::Broken(_) => Self::AnswerAborted(text),
            UpstreamError::Unavailable(_) => Self::UpstreamUnavailable(text),
            UpstreamError::HeldBack(_) => Self::HeldBack(text),
            UpstreamError::TooLarge { .. } => Self::InvalidAnswer(text),
        }
    }
}

/// Sends requests to an upstream. Cheap to clone; dropping the future of a call aborts it.
pub trait HttpClient: Clone + Send + Sync + 'static {
    /// Posts a body to the upstream's path for its endpoint. Any status is an answer. The client that a row is given
    /// answers those that are the upstream's state (such as 429 and 503) by [`UpstreamError::Unavailable`].
    fn post(&self, call: Call) -> impl Future<Output = Result<HttpResponse, UpstreamError>> + Send;

    /// Waits until the next call may start at once. A client without a limit has nothing to wait for.
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] if the upstream takes no calls and the row has no answer yet.
    fn acquire_permit(&self) -> impl Future<Output = Result<(), UpstreamError>> + Send {
        std::future::ready(Ok(()))
    }

    /// Lets other rows call until the next call of this one. To be said before the row waits for anything else.
    fn release_permit(&self) {}
}

/// No upstream at all, for processors that call none.
#[derive(Debug, Clone, Copy)]
pub struct NoUpstream;

impl HttpClient for NoUpstream {
    async fn post(&self, _call: Call) -> Result<HttpResponse, UpstreamError> {
        Ok(HttpResponse::json(501, &json!({ "error": { "message": "no upstream is configured" } })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstreams_error_is_a_failure_of_the_upstream() {
        let cases = [
            (UpstreamError::Timeout("it had 10m".to_owned()), "request_timeout"),
            (UpstreamError::Unreachable("connection refused".to_owned()), "upstream_unreachable"),
            (UpstreamError::Broken("connection reset".to_owned()), "upstream_answer_aborted"),
            (UpstreamError::Unavailable("it answers 503".to_owned()), "upstream_unavailable"),
            (UpstreamError::HeldBack("it answers 503".to_owned()), "upstream_unavailable"),
            (UpstreamError::TooLarge { limit: 7 }, "invalid_upstream_answer"),
        ];
        for (error, code) in cases {
            let reason = FailureReason::from(error.clone());

            assert_eq!((reason.code(), &*reason.message()), (code, &*error.to_string()));
        }
    }
}

//! Inference servers: sending them requests.

mod http;
mod retry_after;

pub use http::{ReqwestHttpClient, UpstreamSettings};

use crate::domain::outcome::HttpResponse;
use crate::domain::request::RequestData;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No answer in time.
    #[error("The upstream did not answer in time: {0}.")]
    Timeout(String),
    /// The upstream was not reached, or the connection broke.
    #[error("The upstream could not be reached: {0}.")]
    Network(String),
    /// The answer is larger than this program holds.
    #[error("The upstream's answer is larger than {limit} bytes.")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
}

/// Sends requests to an upstream. Cheap to clone; dropping the future of a call aborts it.
pub trait HttpClient: Clone + Send + Sync + 'static {
    /// Posts a request's body, byte for byte, to the upstream's path for its endpoint. Any status is an answer.
    fn post(&self, request: &RequestData) -> impl Future<Output = Result<HttpResponse, UpstreamError>> + Send;
}

/// No upstream at all, for processors that call none.
#[derive(Debug, Clone, Copy)]
pub struct NoUpstream;

impl HttpClient for NoUpstream {
    async fn post(&self, _request: &RequestData) -> Result<HttpResponse, UpstreamError> {
        Err(UpstreamError::Network("none is configured".to_owned()))
    }
}

//! Choosing how a request is run by the endpoint it is for.

use async_trait::async_trait;

use super::{CancellationFuture, DefaultRequestProcessor, ProcessorError, RequestProcessor, ShouldRetry};
use crate::domain::endpoint::Endpoint;
use crate::domain::request::{Claimed, Request, RequestCompletionResult};
use crate::storage::Storage;
use crate::upstream::HttpClient;

/// The processor of `batchwright serve`. Each endpoint has one call for each row.
#[derive(Debug, Clone)]
pub struct EndpointProcessor {
    single: DefaultRequestProcessor,
}

impl EndpointProcessor {
    /// A processor that runs single calls with `single`.
    #[must_use]
    pub fn new(single: DefaultRequestProcessor) -> Self {
        Self { single }
    }
}

#[async_trait]
impl<S, H> RequestProcessor<S, H> for EndpointProcessor
where
    S: Storage + Sync,
    H: HttpClient + 'static,
{
    async fn process(
        &self,
        request: Request<Claimed>,
        http: H,
        _storage: &S,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> Result<RequestCompletionResult, ProcessorError> {
        match request.data.endpoint {
            Endpoint::Responses
            | Endpoint::ChatCompletions
            | Endpoint::Embeddings
            | Endpoint::Completions
            | Endpoint::Moderations
            | Endpoint::ImagesGenerations
            | Endpoint::ImagesEdits
            | Endpoint::Videos => Ok(self.single.call(request, http, should_retry, cancellation).await),
        }
    }
}

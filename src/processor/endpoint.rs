//! Choosing how a request is run by the endpoint it is for.

use async_trait::async_trait;

use super::{
    CancellationFuture, DefaultRequestProcessor, ProcessorError, RequestProcessor, ResponsesProcessor, ShouldRetry,
};
use crate::domain::endpoint::Endpoint;
use crate::domain::request::{Claimed, Request, RequestCompletionResult};
use crate::storage::Storage;
use crate::upstream::HttpClient;

/// The processor of `batchwright serve`: rows for `/v1/responses` take as many calls as they need, all others one.
pub struct EndpointProcessor {
    single: DefaultRequestProcessor,
    responses: ResponsesProcessor,
}

impl EndpointProcessor {
    /// A processor that runs rows for `/v1/responses` with `responses`, and single calls with `single`.
    #[must_use]
    pub fn new(single: DefaultRequestProcessor, responses: ResponsesProcessor) -> Self {
        Self { single, responses }
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
        storage: &S,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> Result<RequestCompletionResult, ProcessorError> {
        match request.data.endpoint {
            Endpoint::Responses => Ok(self.responses.run(request, http, storage, should_retry, cancellation).await),
            Endpoint::ChatCompletions
            | Endpoint::Embeddings
            | Endpoint::Completions
            | Endpoint::Moderations
            | Endpoint::ImagesGenerations
            | Endpoint::ImagesEdits
            | Endpoint::Videos => Ok(self.single.call(request, http, should_retry, cancellation).await),
        }
    }
}

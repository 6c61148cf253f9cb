//! Choosing how a request is run by the endpoint it is for.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::Instrument as _;

use super::checked::SchemaCheckedRow;
use super::default::begin;
use super::{
    AnswerSchemas, AudioFiles, CancellationFuture, DefaultRequestProcessor, ProcessorError, RequestProcessor,
    ResponsesProcessor, ShouldRetry,
};
use crate::domain::endpoint::Endpoint;
use crate::domain::request::{Claimed, Request, RequestCompletionResult};
use crate::domain::time::Clock;
use crate::storage::Storage;
use crate::upstream::Session;

/// The processor of `batchwright serve`: rows for `/v1/responses` take as many calls as they need, chat rows whose
/// answers are checked as many as it takes to get them right, all others one, to which audio rows bring a file.
pub struct EndpointProcessor {
    single: DefaultRequestProcessor,
    responses: ResponsesProcessor,
    schemas: Arc<AnswerSchemas>,
    audio: AudioFiles,
    clock: Clock,
}

impl EndpointProcessor {
    /// A processor that runs rows for `/v1/responses` with `responses`, checks answers as `schemas` says, and finds the
    /// files of audio rows by `audio`.
    #[must_use]
    pub fn new(responses: ResponsesProcessor, schemas: Arc<AnswerSchemas>, audio: AudioFiles, clock: Clock) -> Self {
        Self { single: DefaultRequestProcessor::new(clock.clone()), responses, schemas, audio, clock }
    }
}

#[async_trait]
impl<S> RequestProcessor<S, Session> for EndpointProcessor
where
    S: Storage + Sync,
{
    async fn process(
        &self,
        request: Request<Claimed>,
        http: Session,
        storage: &S,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> Result<RequestCompletionResult, ProcessorError> {
        // The long futures are boxed, so that a row with one call does not allocate the room of a loop.
        let checked = match request.data.endpoint {
            Endpoint::Responses => {
                return Ok(Box::pin(self.responses.run(request, http, storage, should_retry, cancellation)).await);
            }
            Endpoint::AudioTranscriptions | Endpoint::AudioTranslations => {
                let (request, span) = begin(request, &self.clock);
                let run = self.audio.run(request, http, should_retry, cancellation);
                return Ok(Box::pin(run.instrument(span)).await);
            }
            Endpoint::ChatCompletions => SchemaCheckedRow::of(&request.data, &self.schemas),
            _ => Ok(None),
        };
        Ok(match checked {
            Ok(None) => self.single.call(request, http, should_retry, cancellation).await,
            Ok(Some(row)) => {
                let (request, span) = begin(request, &self.clock);
                let run = row.run(request, http, should_retry, cancellation, self.schemas.corrections());
                Box::pin(run.instrument(span)).await
            }
            Err(reason) => RequestCompletionResult::Failed(begin(request, &self.clock).0.fail(reason)),
        })
    }
}

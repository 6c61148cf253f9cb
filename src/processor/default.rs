//! One request, one call.

use async_trait::async_trait;
use tracing::{Instrument as _, Span, info_span};

use super::{CancellationFuture, ProcessorError, RequestProcessor, ShouldRetry};
use crate::domain::request::{Claimed, Processing, Request, RequestCompletionResult};
use crate::domain::time::Clock;
use crate::storage::Storage;
use crate::upstream::{Call, HttpClient};

/// Posts the body as it is and takes the answer as it comes.
#[derive(Debug, Clone)]
pub struct DefaultRequestProcessor {
    clock: Clock,
}

impl DefaultRequestProcessor {
    /// A processor that takes the time from `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// The one call of a request.
    pub(super) async fn call(
        &self,
        request: Request<Claimed>,
        http: impl HttpClient,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> RequestCompletionResult {
        let (processing, span) = begin(request, &self.clock);
        fire(processing, http, should_retry, cancellation).instrument(span).await
    }
}

#[async_trait]
impl<S, H> RequestProcessor<S, H> for DefaultRequestProcessor
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
        Ok(self.call(request, http, should_retry, cancellation).await)
    }
}

/// Moves a claimed request on to its calls, in the spans that every processor of `serve` has: the second, for the
/// calls, is returned.
pub(super) fn begin(request: Request<Claimed>, clock: &Clock) -> (Request<Processing>, Span) {
    let claimed = info_span!(
        target: "batchwright_state",
        "batchwright.state.claimed",
        otel.name = "batchwright.state.claimed",
        request_id = %request.data.id,
        daemon_id = %request.state.daemon_id,
    );
    let processing = claimed.in_scope(|| request.process(clock.now()));
    let span = info_span!(
        target: "batchwright_state",
        "batchwright.state.processing",
        otel.name = "batchwright.state.processing",
        request_id = %processing.data.id,
        retry_attempt = processing.attempt,
    );
    (processing, span)
}

async fn fire(
    request: Request<Processing>,
    http: impl HttpClient,
    should_retry: ShouldRetry,
    cancellation: CancellationFuture,
) -> RequestCompletionResult {
    let answer = tokio::select! {
        answer = http.post(Call::from(&request.data)) => answer,
        reason = cancellation => return RequestCompletionResult::Canceled(request.cancel(reason)),
    };
    match answer {
        Ok(response) => request.complete(response, &*should_retry),
        Err(error) => RequestCompletionResult::Failed(request.fail(error.into())),
    }
}

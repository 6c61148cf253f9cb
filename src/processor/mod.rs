//! Taking a claimed request to its end.
//!
//! | the processor owns | the daemon owns |
//! |---|---|
//! | the two phases of a call: claimed to processing, processing to an end | claiming, and how many calls run |
//! | waiting for the answer or the cancellation, and aborting what it started | why a request is called off |
//! | telling a retriable answer from a final one, by `should_retry` | whether and when there is another attempt |
//! | what "the call" is: one fire, or a loop of steps | recording the outcome, metrics, logs |
//!
//! A processor returns an outcome and writes nothing of it; an `Err` and a panic are outcomes too. So no path can
//! leave a row behind.

mod answer_schemas;
mod audio;
mod checked;
mod default;
mod endpoint;
mod responses;

use std::pin::Pin;

use async_trait::async_trait;

pub use answer_schemas::AnswerSchemas;
pub use audio::AudioFiles;
pub use default::DefaultRequestProcessor;
pub use endpoint::EndpointProcessor;
pub use responses::{ResponsesProcessor, StepLog};

pub use crate::domain::retry::ShouldRetry;

use crate::domain::request::{CancellationReason, Claimed, Request, RequestCompletionResult};
use crate::storage::Storage;
use crate::upstream::HttpClient;

/// Resolves, once, if the request is to be given up. It never resolves for a request that runs undisturbed.
pub type CancellationFuture = Pin<Box<dyn Future<Output = CancellationReason> + Send>>;

/// Any error of a processor. The row gets an error line with its text and code `processor_error`.
pub type ProcessorError = Box<dyn std::error::Error + Send + Sync>;

/// What runs a row.
#[async_trait]
pub trait RequestProcessor<S, H>: Send + Sync
where
    S: Storage + Sync,
    H: HttpClient + 'static,
{
    /// Takes a claimed request to an answer, a failure or a cancellation.
    ///
    /// When `cancellation` resolves, whatever was started is to be stopped at once and
    /// [`RequestCompletionResult::Canceled`] returned. Dropping the returned future must stop everything as well.
    ///
    /// # Errors
    /// A fault that no server causes. The row fails with code `processor_error` and is not tried again. A temporary
    /// failure is no `Err`, but a request that failed for a [`FailureReason`](crate::domain::outcome::FailureReason).
    async fn process(
        &self,
        request: Request<Claimed>,
        http: H,
        storage: &S,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> Result<RequestCompletionResult, ProcessorError>;
}

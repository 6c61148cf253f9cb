//! Rows for `/v1/responses`: as many calls of models and tools as they take.
//!
//! A row that asks for no tool that is served here is one call. If the upstream has `/v1/responses`, that call is the
//! row's body and its answer the row's. Any other row is a loop: [`decide_next`](crate::domain::response::decide_next)
//! says what follows from the steps so far, `run` does it, `step_log` keeps it. A step that has ended is never made
//! again: a row that is tried again, here or elsewhere, goes on from its steps.

mod previous;
mod row;
mod run;
mod step_log;
mod unreadable;

use std::sync::Arc;

use tracing::Instrument as _;

use super::answer_schemas::AnswerSchemas;
use super::default::begin;
use super::{CancellationFuture, ShouldRetry};
use crate::domain::request::{CancellationReason, Claimed, Request, RequestCompletionResult};
use crate::domain::response::Limits;
use crate::domain::time::Clock;
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::tools::Catalog;
use crate::upstream::Session;

use row::Ended;
pub use step_log::StepLog;
use unreadable::unreadable;

/// Runs rows for `/v1/responses`.
pub struct ResponsesProcessor {
    limits: Limits,
    catalog: Catalog,
    schemas: Arc<AnswerSchemas>,
    steps: StepLog,
    blobs: Blobs,
    clock: Clock,
}

impl ResponsesProcessor {
    /// A processor with the tools of `catalog`. It keeps steps in `steps`, and finds earlier responses in `blobs`. A
    /// row may ask for lower `limits`.
    #[must_use]
    pub fn new(
        limits: Limits,
        catalog: Catalog,
        schemas: Arc<AnswerSchemas>,
        steps: StepLog,
        blobs: Blobs,
        clock: Clock,
    ) -> Self {
        Self { limits, catalog, schemas, steps, blobs, clock }
    }

    /// Takes a row as far as it gets.
    pub(super) async fn run(
        &self,
        request: Request<Claimed>,
        http: Session,
        storage: &dyn Storage,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> RequestCompletionResult {
        let claimed = request.state.clone();
        let is_fresh = request.is_fresh();
        let (request, span) = begin(request, &self.clock);
        let attempt = async {
            // Nobody has had the row before.
            let steps =
                if is_fresh { Ok(Vec::new()) } else { storage.steps(&request.data.owner, request.data.id).await };
            match steps {
                Ok(steps) => self.attempt((&request.data, &claimed, steps), storage, &http, &should_retry).await,
                Err(error) => Ended::stopped(unreadable("The row's steps", &error.into(), &self.blobs).await),
            }
        };
        let ended = tokio::select! {
            ended = attempt.instrument(span) => ended,
            reason = cancellation => return RequestCompletionResult::Canceled(request.cancel(reason)),
        };
        match ended {
            Ended::Answered(response) => request.complete(response, &*should_retry),
            Ended::Stopped { why, has_progressed, usage } => {
                let request = if has_progressed { request.progress() } else { request };
                match why {
                    Some(reason) => RequestCompletionResult::Failed(request.fail_after(usage, reason)),
                    None => RequestCompletionResult::Canceled(request.cancel(CancellationReason::User)),
                }
            }
        }
    }
}

//! Rows for `/v1/responses`: as many calls of models and tools as they take.
//!
//! A row that asks for no tool that is served here is one call, and if the upstream has `/v1/responses` that call is the
//! row's body and its answer the row's. Any other is a loop: [`decide_next`](crate::domain::response::decide_next) says
//! what follows from the steps so far, `run` does it, `step_log` keeps it. A step that has ended is never made again: a
//! row that is tried again, here or elsewhere, goes on from its steps.

mod ask;
mod previous;
mod row;
mod run;
mod step_log;

use std::sync::Arc;

use tracing::Instrument as _;

use super::default::begin;
use super::ensure::Ensured;
use super::{CancellationFuture, ShouldRetry};
use crate::config::{Dialect, ResponsesConfig};
use crate::domain::outcome::FailureReason;
use crate::domain::request::{CancellationReason, Claimed, Request, RequestCompletionResult};
use crate::domain::response::Limits;
use crate::domain::time::Clock;
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::telemetry::chain;
use crate::tools::Catalog;
use crate::upstream::HttpClient;
use ask::Asker;
use row::Ended;
pub use step_log::StepLog;

/// How rows for `/v1/responses` are run.
#[derive(Debug, Clone)]
pub struct ResponsesSettings {
    /// The API the upstream is asked through.
    pub dialect: Dialect,
    /// Bounds of one row.
    pub limits: Limits,
}

impl From<&ResponsesConfig> for ResponsesSettings {
    fn from(config: &ResponsesConfig) -> Self {
        Self { dialect: config.upstream_responses, limits: config.limits() }
    }
}

/// Runs rows for `/v1/responses`.
pub struct ResponsesProcessor {
    settings: ResponsesSettings,
    catalog: Catalog,
    ensured: Arc<Ensured>,
    steps: StepLog,
    blobs: Blobs,
    asker: Asker,
    clock: Clock,
}

impl ResponsesProcessor {
    /// A processor with the tools of `catalog`, that keeps steps in `steps` and finds earlier responses in `blobs`.
    #[must_use]
    pub fn new(
        settings: ResponsesSettings,
        catalog: Catalog,
        ensured: Arc<Ensured>,
        steps: StepLog,
        blobs: Blobs,
        clock: Clock,
    ) -> Self {
        let asker = Asker::new(settings.dialect);
        Self { settings, catalog, ensured, steps, blobs, asker, clock }
    }

    /// Takes a row as far as it gets.
    pub(super) async fn run(
        &self,
        request: Request<Claimed>,
        http: impl HttpClient,
        storage: &dyn Storage,
        should_retry: ShouldRetry,
        cancellation: CancellationFuture,
    ) -> RequestCompletionResult {
        let claimed = request.state.clone();
        let is_fresh = claimed.lease.token == 1 && request.attempt == 0;
        let (request, span) = begin(request, &self.clock);
        let attempt = async {
            // Nobody has had the row before.
            let steps =
                if is_fresh { Ok(Vec::new()) } else { storage.steps(&request.data.owner, request.data.id).await };
            match steps {
                Ok(steps) => self.attempt((&request.data, &claimed, steps), storage, &http, &should_retry).await,
                Err(error) => Ended::stopped(FailureReason::Network(format!(
                    "The row's steps cannot be read: {}.",
                    chain(&error)
                ))),
            }
        };
        let ended = tokio::select! {
            ended = attempt.instrument(span) => ended,
            reason = cancellation => return RequestCompletionResult::Canceled(request.cancel(reason)),
        };
        match ended {
            Ended::Answered(response) => request.complete(response, &*should_retry),
            Ended::Stopped { why, has_progressed } => {
                let request = if has_progressed { request.progress() } else { request };
                match why {
                    Some(reason) => RequestCompletionResult::Failed(request.fail(reason)),
                    None => RequestCompletionResult::Canceled(request.cancel(CancellationReason::User)),
                }
            }
        }
    }
}

//! One row on its way to an outcome: attempts through the processor, judged, until one counts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::domain::ids::{LeaseId, RequestId};
use crate::domain::line;
use crate::domain::outcome::FailureReason;
use crate::domain::request::{CancellationReason, Claimed, Pending, Request, RequestCompletionResult};
use crate::domain::retry::Verdict;
use crate::processor::{CancellationFuture, RequestProcessor};
use crate::storage::Storage;
use crate::telemetry::metrics;
use crate::upstream::HttpClient;

/// Which row, and by what right it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: RequestId,
    pub(super) lease: LeaseId,
    pub(super) token: i64,
}

/// The two ways in which the rows of a lease are called off. Shared by its rows: a token's own clones take a lock.
pub(super) struct Halts {
    /// The rows are not to be run here any more.
    pub(super) lease: CancellationToken,
    /// The daemon aborts what is left; this cancels `lease` too.
    pub(super) daemon: CancellationToken,
}

/// Runs a row until it has an outcome, which is handed to the recorder, or is called off, which leaves it owed.
pub(super) async fn run<S, H, P>(
    context: &Context<S, H, P>,
    row: &Row,
    mut request: Request<Pending>,
    mut call: OwnedSemaphorePermit,
    halts: Arc<Halts>,
) where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H>,
{
    let custom_id = request.data.custom_id.clone();
    loop {
        let started = context.clock.now();
        let attempt = request.attempt;
        let ended = attempt_once(context, request.claim(context.id), halts.clone()).await;
        let took = context.clock.now().since(started);
        let reason = match ended {
            Ended::Canceled => return,
            Ended::Completed(answer) => {
                metrics::attempt_ended(metrics::Ended::Completed, took);
                tracing::debug!(request_id = %row.id, attempt, ?took, "request completed");
                let line = line::completed(row.id, &custom_id, &answer);
                context.outcomes.completed(row, line, answer.usage, call).await;
                return;
            }
            Ended::GaveUp(reason) => reason,
            Ended::Failed(failed) => match context.settings.retry.judge(&failed, context.clock.now(), rand::random()) {
                Verdict::Fail => failed.state.reason,
                Verdict::RetryAt(at) => {
                    metrics::attempt_ended(metrics::Ended::Retried, took);
                    tracing::debug!(request_id = %row.id, attempt, reason = failed.state.reason.code(), "request will be tried again");
                    drop(call);
                    request = failed.retry(at);
                    match next_permit(context, &request, &halts.lease).await {
                        Some(permit) => call = permit,
                        None => return,
                    }
                    continue;
                }
            },
        };
        metrics::attempt_ended(metrics::Ended::Failed, took);
        tracing::debug!(request_id = %row.id, attempt, ?took, reason = reason.code(), "request failed");
        drop(call);
        context.outcomes.failed(row, line::failed(row.id, &custom_id, &reason)).await;
        return;
    }
}

enum Ended {
    Completed(crate::domain::outcome::Answer),
    Failed(Request<crate::domain::request::Failed>),
    /// The processor ended without giving the request back.
    GaveUp(FailureReason),
    Canceled,
}

async fn attempt_once<S, H, P>(context: &Context<S, H, P>, request: Request<Claimed>, halts: Arc<Halts>) -> Ended
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H>,
{
    let cancellation = cancellation(halts);
    let should_retry = context.should_retry.clone();
    let work = context.processor.process(request, context.http.clone(), &context.storage, should_retry, cancellation);
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(RequestCompletionResult::Completed(request))) => Ended::Completed(request.state.answer),
        Ok(Ok(RequestCompletionResult::Failed(request))) => Ended::Failed(request),
        Ok(Ok(RequestCompletionResult::Canceled(_))) => Ended::Canceled,
        Ok(Err(error)) => Ended::GaveUp(FailureReason::Processor(error.to_string())),
        Err(_) => Ended::GaveUp(FailureReason::Processor("The processor panicked.".to_owned())),
    }
}

/// Two reasons, one future: a halted lease is the user's doing unless the daemon itself is stopping.
fn cancellation(halts: Arc<Halts>) -> CancellationFuture {
    Box::pin(async move {
        halts.lease.cancelled().await;
        if halts.daemon.is_cancelled() { CancellationReason::Shutdown } else { CancellationReason::User }
    })
}

/// Waits until the next attempt is due and may run. `None` if the row is to be left.
async fn next_permit<S, H, P>(
    context: &Context<S, H, P>,
    request: &Request<Pending>,
    halt: &CancellationToken,
) -> Option<OwnedSemaphorePermit> {
    let wait = request.state.not_before.map(|at| at.since(context.clock.now())).unwrap_or_default();
    tokio::select! {
        biased;
        () = halt.cancelled() => None,
        () = context.stops.stopping.cancelled() => None,
        permit = async {
            tokio::time::sleep(wait).await;
            context.calls.clone().acquire_owned().await
        } => permit.ok(),
    }
}

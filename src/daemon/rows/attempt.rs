//! One row on its way to an outcome: attempts through the processor, judged, until one counts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;

use super::RowRunner;
use super::permit_share::PermitShare;
use super::queue::{Cancellation, QueuedRow};
use crate::domain::line;
use crate::domain::outcome::FailureReason;
use crate::domain::request::{CancellationReason, Claimed, Request, RequestCompletionResult};
use crate::domain::retry::Verdict;
use crate::fault;
use crate::processor::{CancellationFuture, RequestProcessor};
use crate::storage::Storage;
use crate::telemetry::metrics;
use crate::upstream::Session;

/// What an attempt came to.
pub(super) enum Attempted {
    /// The outcome was handed to the recorder, or the row is not to be run here any more and stays owed.
    Done,
    /// The row is to be run again when it is due.
    ToBeTriedAgain(Box<QueuedRow>),
}

/// Runs a row once.
pub(super) async fn attempt<S, P>(runner: &RowRunner<S, P>, open: QueuedRow, session: &Session) -> Attempted
where
    S: Storage,
    P: RequestProcessor<S, Session>,
{
    let QueuedRow { row, request, cancellation, mut waiting, share, open, .. } = open;
    if !runner.validity.is_valid() {
        tokio::select! {
            () = cancellation.cancelled() => return Attempted::Done,
            () = runner.validity.wait_until_valid() => {}
        }
    }
    if cancellation.is_cancelled() {
        return Attempted::Done;
    }
    waiting.begin();
    let custom_id = request.data.custom_id.clone();
    fault::for_row("attempt.begun", &custom_id);
    let started = runner.shared.clock.now();
    let attempt = request.attempt;
    let claimed = Claimed { daemon_id: runner.shared.id, lease: row.lease };
    let called_off = called_off(cancellation.clone(), share.as_deref());
    let ended = process(runner, request.claim(claimed), session, called_off).await;
    let ended_at = runner.shared.clock.now();
    let took = ended_at.since(started);
    if let (Some(share), Some(has_answered)) = (&share, ended.shows_an_answer()) {
        share.answered(has_answered, ended_at, took);
    }
    let reason = match ended {
        ProcessingEnd::Canceled(canceled) if canceled.state.reason == CancellationReason::Recall => {
            tracing::debug!(request_id = %row.id, attempt, ?took, "a call on loan is recalled; its request waits again");
            let request = canceled.requeue();
            let again = QueuedRow { row, request, cancellation, waiting, place: None, share, open };
            return Attempted::ToBeTriedAgain(Box::new(again));
        }
        ProcessingEnd::Canceled(_) => return Attempted::Done,
        ProcessingEnd::Completed(answer) => {
            metrics::attempt_ended(metrics::AttemptEnd::Completed, took);
            tracing::debug!(request_id = %row.id, attempt, ?took, "request completed");
            let line = line::completed(row.id, &custom_id, &answer);
            runner.outbox.completed(row, line, answer.usage).await;
            return Attempted::Done;
        }
        ProcessingEnd::GaveUp(reason) => reason,
        ProcessingEnd::Failed(failed) => {
            match runner.shared.settings.retry.judge(&failed, runner.shared.clock.now(), rand::random()) {
                Verdict::Fail => failed.state.reason,
                Verdict::RetryAt(at) => {
                    metrics::attempt_ended(metrics::AttemptEnd::Retried, took);
                    tracing::debug!(request_id = %row.id, attempt, reason = failed.state.reason.code(), "request will be tried again");
                    let request = failed.retry(at);
                    let again = QueuedRow { row, request, cancellation, waiting, place: None, share, open };
                    return Attempted::ToBeTriedAgain(Box::new(again));
                }
            }
        }
    };
    metrics::attempt_ended(metrics::AttemptEnd::Failed, took);
    tracing::debug!(request_id = %row.id, attempt, ?took, reason = reason.code(), "request failed");
    runner.outbox.failed(row, line::failed(row.id, &custom_id, &reason)).await;
    Attempted::Done
}

enum ProcessingEnd {
    Completed(crate::domain::outcome::Answer),
    Failed(Request<crate::domain::request::Failed>),
    /// The processor ended without giving the request back.
    GaveUp(FailureReason),
    Canceled(Request<crate::domain::request::Canceled>),
}

impl ProcessingEnd {
    /// Whether the upstream answered, if that can be told.
    fn shows_an_answer(&self) -> Option<bool> {
        match self {
            Self::Completed(_) => Some(true),
            Self::Failed(failed) => {
                Some(!matches!(failed.state.reason, FailureReason::Timeout(_) | FailureReason::Network(_)))
            }
            Self::GaveUp(_) | Self::Canceled(_) => None,
        }
    }
}

async fn process<S, P>(
    runner: &RowRunner<S, P>,
    request: Request<Claimed>,
    session: &Session,
    cancellation: CancellationFuture,
) -> ProcessingEnd
where
    S: Storage,
    P: RequestProcessor<S, Session>,
{
    let should_retry = runner.should_retry.clone();
    let work = runner.processor.process(request, session.clone(), &runner.shared.storage, should_retry, cancellation);
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(RequestCompletionResult::Completed(request))) => ProcessingEnd::Completed(request.state.answer),
        Ok(Ok(RequestCompletionResult::Failed(request))) => ProcessingEnd::Failed(request),
        Ok(Ok(RequestCompletionResult::Canceled(request))) => ProcessingEnd::Canceled(request),
        Ok(Err(error)) => ProcessingEnd::GaveUp(FailureReason::Processor(error.to_string())),
        Err(_) => ProcessingEnd::GaveUp(FailureReason::Processor("The processor panicked.".to_owned())),
    }
}

/// Three reasons, one future: a halted lease is the user's doing unless the daemon itself is stopping, and a call on
/// loan can be recalled.
fn called_off(cancellation: Arc<Cancellation>, share: Option<&PermitShare>) -> CancellationFuture {
    let halted = async move {
        cancellation.lease.cancelled().await;
        if cancellation.abort.is_cancelled() { CancellationReason::Shutdown } else { CancellationReason::User }
    };
    match share.and_then(PermitShare::loan) {
        None => Box::pin(halted),
        Some(loan) => {
            let recall = loan.recall.clone();
            Box::pin(async move {
                tokio::select! {
                    biased;
                    reason = halted => reason,
                    () = recall.cancelled() => CancellationReason::Recall,
                }
            })
        }
    }
}

//! One attempt of a row: the processor runs it, and the retry policy judges the end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;

use super::RowRunner;
use super::queue::{Cancellation, QueuedRow};
use crate::domain::line;
use crate::domain::outcome::{Answer, FailureReason};
use crate::domain::request::{CancellationReason, Claimed, Failed, Request, RequestCompletionResult};
use crate::domain::retry::Verdict;
use crate::fault;
use crate::processor::{CancellationFuture, RequestProcessor};
use crate::storage::Storage;
use crate::telemetry::metrics;
use crate::upstream::{HttpClient, Session};

/// What an attempt came to.
pub(super) enum Attempted {
    /// The outbox has the outcome, or the row was cancelled here and stays owed.
    Done,
    /// The row has another attempt when that is due.
    ToBeTriedAgain(Box<QueuedRow>),
}

/// Runs a row once.
pub(super) async fn attempt<S, H, P>(runner: &RowRunner<S, H, P>, open: QueuedRow, session: &Session<H>) -> Attempted
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>>,
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
    let ended = process(runner, request.claim(claimed), session, cancellation.clone()).await;
    let took = runner.shared.clock.now().since(started);
    if let (Some(share), Some(answers)) = (&share, ended.shows_an_answer()) {
        share.answered(answers);
    }
    let reason = match ended {
        ProcessingEnd::Canceled => return Attempted::Done,
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
                    let reason = failed.state.reason.code();
                    tracing::debug!(request_id = %row.id, attempt, reason, "request will be tried again");
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
    Completed(Answer),
    Failed(Request<Failed>),
    /// The processor ended without giving the request back.
    GaveUp(FailureReason),
    Canceled,
}

impl ProcessingEnd {
    /// Whether the upstream answered; `None` if the end does not show it.
    fn shows_an_answer(&self) -> Option<bool> {
        match self {
            Self::Completed(_) => Some(true),
            Self::Failed(failed) => {
                Some(!matches!(failed.state.reason, FailureReason::Timeout(_) | FailureReason::Network(_)))
            }
            Self::GaveUp(_) | Self::Canceled => None,
        }
    }
}

async fn process<S, H, P>(
    runner: &RowRunner<S, H, P>,
    request: Request<Claimed>,
    session: &Session<H>,
    cancellation: Arc<Cancellation>,
) -> ProcessingEnd
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>>,
{
    let cancellation = called_off(cancellation);
    let should_retry = runner.should_retry.clone();
    let work = runner.processor.process(request, session.clone(), &runner.shared.storage, should_retry, cancellation);
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(RequestCompletionResult::Completed(request))) => ProcessingEnd::Completed(request.state.answer),
        Ok(Ok(RequestCompletionResult::Failed(request))) => ProcessingEnd::Failed(request),
        Ok(Ok(RequestCompletionResult::Canceled(_))) => ProcessingEnd::Canceled,
        Ok(Err(error)) => ProcessingEnd::GaveUp(FailureReason::Processor(error.to_string())),
        Err(_) => ProcessingEnd::GaveUp(FailureReason::Processor("The processor panicked.".to_owned())),
    }
}

/// Resolves with the reason when the row is cancelled. A halted lease means that a user cancelled the batch, unless the
/// daemon aborts all its leases.
fn called_off(cancellation: Arc<Cancellation>) -> CancellationFuture {
    Box::pin(async move {
        cancellation.lease.cancelled().await;
        if cancellation.abort.is_cancelled() { CancellationReason::Shutdown } else { CancellationReason::User }
    })
}

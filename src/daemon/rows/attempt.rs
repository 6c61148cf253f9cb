//! One attempt of a row: the processor runs it, and the retry policy judges the end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;

use super::RowRunner;
use super::ended_attempt::EndedAttempt;
use super::parked::Parked;
use super::permit_share::PermitShare;
use super::queue::{Cancellation, QueuedRow};
use super::retrying::Retrying;
use crate::daemon::recording::RowOutcome;
use crate::domain::answer::Answer;
use crate::domain::attempts::RowAttempts;
use crate::domain::line;
use crate::domain::outcome::FailureReason;
use crate::domain::request::{
    Canceled, CancellationReason, Claimed, Failed, Pending, Request, RequestCompletionResult,
};
use crate::domain::retry::Verdict;
use crate::domain::usage::Usage;
use crate::fault;
use crate::processor::{CancellationFuture, RequestProcessor};
use crate::storage::Storage;
use crate::telemetry::metrics;
use crate::upstream::Session;

/// What an attempt came to.
pub(super) enum Attempted {
    /// The outbox has the outcome, or the row was cancelled here and stays owed.
    Done,
    /// The row has another attempt when that is due.
    ToBeTriedAgain(Box<QueuedRow>),
}

/// Runs a row once.
pub(super) async fn attempt<S, P>(runner: &RowRunner<S, P>, mut open: QueuedRow, session: &Session) -> Attempted
where
    S: Storage,
    P: RequestProcessor<S, Session>,
{
    open.retrying = None;
    // Held until this attempt is judged: a row that is parked again does not end an outage.
    let _was_parked = open.parked.take();
    if !runner.validity.is_valid() {
        tokio::select! {
            () = open.cancellation.cancelled() => return Attempted::Done,
            () = runner.validity.wait_until_valid() => {}
        }
    }
    if open.cancellation.is_cancelled() {
        return Attempted::Done;
    }
    let started_at = runner.shared.clock.now();
    open.waiting.begin(started_at);
    let (row, request, in_lease) = (open.row, open.request, open.open);
    let (custom_id, model) = (request.data.custom_id.clone(), request.data.model.clone());
    fault::for_row("attempt.begun", &custom_id);
    let attempt = request.attempt;
    let claimed = Claimed { daemon_id: runner.shared.id, lease: row.lease };
    let called_off = called_off(open.cancellation.clone(), open.share.as_deref());
    let ended = process(runner, request.claim(claimed), session, called_off).await;
    let this = EndedAttempt { started_at, ended_at: runner.shared.clock.now(), session };
    let took = this.took();
    if let (Some(share), Some(has_answered)) = (&open.share, ended.shows_an_answer()) {
        share.answered(has_answered, this.ended_at, took);
    }
    let (reason, usage) = match ended {
        ProcessingEnd::Canceled(canceled) if canceled.state.reason == CancellationReason::Recall => {
            tracing::debug!(
                request_id = %row.id, attempt, ?took,
                "a call on loan is recalled; its request waits again"
            );
            let again = QueuedRow { request: canceled.requeue(), open: in_lease, ..open };
            return Attempted::ToBeTriedAgain(Box::new(again));
        }
        ProcessingEnd::Canceled(_) => return Attempted::Done,
        ProcessingEnd::Completed(answer) => {
            metrics::attempt_ended(metrics::AttemptEnd::Completed, took);
            tracing::debug!(request_id = %row.id, attempt, ?took, "request completed");
            let line = line::completed(row.id, &custom_id, &answer);
            let attempts = this.ends(open.attempts, None);
            runner.hand_in(RowOutcome { row, model, failure: None, line, usage: answer.usage, attempts }).await;
            return Attempted::Done;
        }
        ProcessingEnd::GaveUp(reason) => (reason, Usage::default()),
        ProcessingEnd::Failed(failed) => match judge(runner, failed, &this, &mut open.attempts) {
            Err(failed) => (failed.reason, failed.usage),
            Ok(ToTryAgain { request, parked, retrying }) => {
                let again = QueuedRow { request, parked, retrying: Some(retrying), open: in_lease, ..open };
                return Attempted::ToBeTriedAgain(Box::new(again));
            }
        },
    };
    metrics::attempt_ended(metrics::AttemptEnd::Failed, took);
    tracing::debug!(request_id = %row.id, attempt, ?took, reason = reason.code(), "request failed");
    let attempts = this.ends(open.attempts, Some(&reason));
    runner.hand_in(RowOutcome { attempts, ..RowOutcome::failed(row, model, &custom_id, &reason, usage) }).await;
    Attempted::Done
}

/// A request that has another attempt.
struct ToTryAgain {
    request: Request<Pending>,
    /// If it waits for something that is away.
    parked: Option<Parked>,
    retrying: Retrying,
}

/// Judges a request that failed: its next attempt, which may be parked. An error is one that has none. `attempts` gets
/// the attempt if it is not the last.
fn judge<S, P>(
    runner: &RowRunner<S, P>,
    failed: Request<Failed>,
    this: &EndedAttempt<'_>,
    attempts: &mut Option<Box<RowAttempts>>,
) -> Result<ToTryAgain, Box<Failed>> {
    let took = this.took();
    let verdict = runner.shared.settings.retry.judge(&failed, runner.shared.clock.now(), rand::random());
    if matches!(verdict, Verdict::Retry { .. } | Verdict::Park { .. }) {
        runner.shared.last_failures.note(failed.data.id, &failed.state.reason);
    }
    if verdict != Verdict::Fail {
        this.note(attempts, &failed.state.reason, matches!(verdict, Verdict::Retry { .. }));
    }
    let retrying = || runner.retrying.add(failed.data.id.batch, &failed.state.reason);
    let (request_id, attempt, reason) = (failed.data.id, failed.attempt, failed.state.reason.code());
    match verdict {
        Verdict::Fail => {
            let mut state = failed.state;
            state.usage.add(failed.spent);
            Err(Box::new(state))
        }
        Verdict::Retry { at } => {
            metrics::attempt_ended(metrics::AttemptEnd::Retried, took);
            tracing::debug!(%request_id, attempt, reason, "request will be tried again");
            let retrying = retrying();
            Ok(ToTryAgain { request: failed.retry(at), parked: None, retrying })
        }
        Verdict::Requeue => {
            let parked = runner.parked.add(&failed.state.reason);
            let retrying = retrying();
            Ok(ToTryAgain { request: failed.unsent(), parked: Some(parked), retrying })
        }
        Verdict::Park { until } => {
            metrics::attempt_ended(metrics::AttemptEnd::Parked, took);
            tracing::debug!(%request_id, attempt, reason, parks = failed.parks, "request is parked");
            let parked = runner.parked.add(&failed.state.reason);
            let retrying = retrying();
            Ok(ToTryAgain { request: failed.park(until), parked: Some(parked), retrying })
        }
    }
}

enum ProcessingEnd {
    Completed(Answer),
    Failed(Request<Failed>),
    /// The processor ended without giving the request back.
    GaveUp(FailureReason),
    Canceled(Request<Canceled>),
}

impl ProcessingEnd {
    /// Whether the upstream answered; `None` if the end does not show it.
    fn shows_an_answer(&self) -> Option<bool> {
        match self {
            Self::Completed(_) => Some(true),
            Self::Failed(failed) => failed.state.reason.shows_an_answer(),
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
        Ok(Ok(RequestCompletionResult::Completed(mut request))) => {
            request.state.answer.usage.add(request.spent);
            ProcessingEnd::Completed(request.state.answer)
        }
        Ok(Ok(RequestCompletionResult::Failed(request))) => ProcessingEnd::Failed(request),
        Ok(Ok(RequestCompletionResult::Canceled(request))) => ProcessingEnd::Canceled(request),
        Ok(Err(error)) => ProcessingEnd::GaveUp(FailureReason::Processor(error.to_string())),
        Err(_) => ProcessingEnd::GaveUp(FailureReason::Processor("The processor panicked.".to_owned())),
    }
}

/// Resolves with the reason when the row is cancelled. A halted lease means that a user cancelled the batch, unless the
/// daemon aborts all its leases. A call on loan is recalled when another model needs its permit.
fn called_off(cancellation: Arc<Cancellation>, share: Option<&PermitShare>) -> CancellationFuture {
    let halted = async move {
        cancellation.tokens.halt.cancelled().await;
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

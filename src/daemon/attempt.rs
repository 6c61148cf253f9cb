//! One row on its way to an outcome: attempts through the processor, judged, until one counts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;

use super::context::Context;
use super::queue::{Halts, OpenRow};
use crate::domain::ids::RequestId;
use crate::domain::lease::FencedLease;
use crate::domain::line;
use crate::domain::outcome::FailureReason;
use crate::domain::request::{CancellationReason, Claimed, Request, RequestCompletionResult};
use crate::domain::retry::Verdict;
use crate::fault;
use crate::processor::{CancellationFuture, RequestProcessor};
use crate::storage::Storage;
use crate::telemetry::metrics;
use crate::upstream::{HttpClient, Session};

/// Which row, and by what right it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: RequestId,
    pub(super) lease: FencedLease,
}

/// What an attempt came to.
pub(super) enum Attempted {
    /// The outcome was handed to the recorder, or the row is not to be run here any more and stays owed.
    Done,
    /// The row is to be tried again when it is due.
    ToBeTriedAgain(Box<OpenRow>),
}

/// Runs a row once.
pub(super) async fn attempt<S, H, P>(context: &Context<S, H, P>, open: OpenRow, session: &Session<H>) -> Attempted
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>>,
{
    let OpenRow { row, request, halts, mut waiting, share, open, .. } = open;
    if !context.lifeline.holds() {
        tokio::select! {
            () = halts.until_no_more() => return Attempted::Done,
            () = context.lifeline.until_it_holds() => {}
        }
    }
    if halts.no_more() {
        return Attempted::Done;
    }
    waiting.begin();
    let custom_id = request.data.custom_id.clone();
    fault::for_row("attempt.begun", &custom_id);
    let started = context.clock.now();
    let attempt = request.attempt;
    let claimed = Claimed { daemon_id: context.id, lease: row.lease };
    let ended = process(context, request.claim(claimed), session, halts.clone()).await;
    let took = context.clock.now().since(started);
    if let (Some(share), Some(answers)) = (&share, ended.shows_an_answer()) {
        share.answered(answers);
    }
    let reason = match ended {
        Ended::Canceled => return Attempted::Done,
        Ended::Completed(answer) => {
            metrics::attempt_ended(metrics::AttemptEnd::Completed, took);
            tracing::debug!(request_id = %row.id, attempt, ?took, "request completed");
            let line = line::completed(row.id, &custom_id, &answer);
            context.outcomes.completed(row, line, answer.usage).await;
            return Attempted::Done;
        }
        Ended::GaveUp(reason) => reason,
        Ended::Failed(failed) => match context.settings.retry.judge(&failed, context.clock.now(), rand::random()) {
            Verdict::Fail => failed.state.reason,
            Verdict::RetryAt(at) => {
                metrics::attempt_ended(metrics::AttemptEnd::Retried, took);
                tracing::debug!(request_id = %row.id, attempt, reason = failed.state.reason.code(), "request will be tried again");
                let request = failed.retry(at);
                let again = OpenRow { row, request, halts, waiting, place: None, share, open };
                return Attempted::ToBeTriedAgain(Box::new(again));
            }
        },
    };
    metrics::attempt_ended(metrics::AttemptEnd::Failed, took);
    tracing::debug!(request_id = %row.id, attempt, ?took, reason = reason.code(), "request failed");
    context.outcomes.failed(row, line::failed(row.id, &custom_id, &reason)).await;
    Attempted::Done
}

enum Ended {
    Completed(crate::domain::outcome::Answer),
    Failed(Request<crate::domain::request::Failed>),
    /// The processor ended without giving the request back.
    GaveUp(FailureReason),
    Canceled,
}

impl Ended {
    /// Whether the upstream answered, if that can be told.
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
    context: &Context<S, H, P>,
    request: Request<Claimed>,
    session: &Session<H>,
    halts: Arc<Halts>,
) -> Ended
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, Session<H>>,
{
    let cancellation = cancellation(halts);
    let should_retry = context.should_retry.clone();
    let work = context.processor.process(request, session.clone(), &context.storage, should_retry, cancellation);
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
        if halts.abort.is_cancelled() { CancellationReason::Shutdown } else { CancellationReason::User }
    })
}

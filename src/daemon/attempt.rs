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
use crate::processor::{CancellationFuture, RequestProcessor};
use crate::storage::Storage;
use crate::telemetry::metrics;
use crate::upstream::HttpClient;

/// Which row, and by what right it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) id: RequestId,
    pub(super) lease: FencedLease,
}

/// Takes rows and runs them, one after the other, until the queue is closed. `caller` is the number of the caller,
/// counted from 0: those above the limit pause.
pub(super) async fn call_row_after_row<S, H, P>(context: Arc<Context<S, H, P>>, caller: usize)
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H>,
{
    while let Some(open) = next_row(&context, caller).await {
        run_to_its_end(&context, open).await;
    }
}

/// Runs a row that was taken from the queue, until it has an outcome or waits elsewhere.
pub(super) async fn run_to_its_end<S, H, P>(context: &Context<S, H, P>, mut open: OpenRow)
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H>,
{
    // Its read may make room for another.
    open.place = None;
    let mut next = Some(open);
    while let Some(open) = next {
        next = run(context, open).await;
    }
}

async fn next_row<S, H, P>(context: &Context<S, H, P>, caller: usize) -> Option<OpenRow> {
    loop {
        if context.limit.now() <= caller {
            tokio::select! {
                () = context.stops.ended.cancelled() => return None,
                () = context.limit.until_above(caller) => {}
            }
        }
        if let Some(open) = context.queue.next_now() {
            return Some(open);
        }
        if let Ok(open) = row_and_call(context, caller).await {
            return open;
        }
    }
}

/// The limit was lowered: this caller is to pause.
struct Limited;

/// Waits for a row, `None` if the queue is closed. Meanwhile the caller's call is lent: rows whose tools have answered may
/// wait for one.
async fn row_and_call<S, H, P>(context: &Context<S, H, P>, caller: usize) -> Result<Option<OpenRow>, Limited> {
    let _idle = context.queue.idle();
    context.loans.lend();
    loop {
        let open = tokio::select! {
            biased;
            () = context.limit.until_no_more_than(caller) => {
                context.loans.take_back();
                return Err(Limited);
            }
            open = context.queue.next() => open,
        };
        let Some(open) = open else { return Ok(None) };
        let halts = open.halts.clone();
        tokio::select! {
            biased;
            () = context.limit.until_no_more_than(caller) => {
                context.queue.put_back(open);
                context.loans.take_back();
                return Err(Limited);
            }
            () = context.loans.take() => return Ok(Some(open)),
            () = halts.until_no_more() => drop(open),
        }
    }
}

/// Runs a row once. Its outcome is handed to the recorder; called off, it stays owed; to be tried again, it waits
/// elsewhere, or is returned for another attempt if there is no place to wait.
async fn run<S, H, P>(context: &Context<S, H, P>, open: OpenRow) -> Option<OpenRow>
where
    S: Storage,
    H: HttpClient,
    P: RequestProcessor<S, H>,
{
    let OpenRow { row, request, halts, mut waiting, share, open, .. } = open;
    if !context.lifeline.holds() {
        tokio::select! {
            () = halts.until_no_more() => return None,
            () = context.lifeline.until_it_holds() => {}
        }
    }
    if halts.no_more() {
        return None;
    }
    waiting.begin();
    let custom_id = request.data.custom_id.clone();
    #[cfg(feature = "failpoints")]
    if custom_id == "deadly" {
        fail::fail_point!("attempt.of-deadly-row", |what| {
            crate::fault::act(what.as_deref());
            None
        });
    }
    let started = context.clock.now();
    let attempt = request.attempt;
    let claimed = Claimed { daemon_id: context.id, lease: row.lease };
    let ended = attempt_once(context, request.claim(claimed), halts.clone()).await;
    let took = context.clock.now().since(started);
    if let (Some(share), Some(answers)) = (&share, ended.shows_an_answer()) {
        share.answered(answers);
    }
    let reason = match ended {
        Ended::Canceled => return None,
        Ended::Completed(answer) => {
            metrics::attempt_ended(metrics::Ended::Completed, took);
            tracing::debug!(request_id = %row.id, attempt, ?took, "request completed");
            let line = line::completed(row.id, &custom_id, &answer);
            context.outcomes.completed(row, line, answer.usage).await;
            return None;
        }
        Ended::GaveUp(reason) => reason,
        Ended::Failed(failed) => match context.settings.retry.judge(&failed, context.clock.now(), rand::random()) {
            Verdict::Fail => failed.state.reason,
            Verdict::RetryAt(at) => {
                metrics::attempt_ended(metrics::Ended::Retried, took);
                tracing::debug!(request_id = %row.id, attempt, reason = failed.state.reason.code(), "request will be tried again");
                return try_again(
                    context,
                    OpenRow { row, request: failed.retry(at), halts, waiting, place: None, share, open },
                )
                .await;
            }
        },
    };
    metrics::attempt_ended(metrics::Ended::Failed, took);
    tracing::debug!(request_id = %row.id, attempt, ?took, reason = reason.code(), "request failed");
    context.outcomes.failed(row, line::failed(row.id, &custom_id, &reason)).await;
    None
}

/// Has a row wait until its next attempt is due: beside the callers, which go on with other rows, as long as not too
/// many wait there. Otherwise the caller waits, which is what keeps it from opening more rows than can be held.
async fn try_again<S, H, P>(context: &Context<S, H, P>, mut open: OpenRow) -> Option<OpenRow> {
    let wait = open.request.state.not_before.map(|at| at.since(context.clock.now())).unwrap_or_default();
    let until_due = async move |open: OpenRow| {
        tokio::select! {
            biased;
            () = open.halts.until_no_more() => None,
            () = tokio::time::sleep(wait) => Some(open),
        }
    };
    let Ok(place) = context.waiting_places.clone().try_acquire_owned() else { return until_due(open).await };
    open.place = Some(Arc::new(place));
    open.share = None;
    let queue = context.queue.clone();
    tokio::spawn(async move {
        if let Some(open) = until_due(open).await {
            queue.push(vec![open]);
        }
    });
    None
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
        if halts.abort.is_cancelled() { CancellationReason::Shutdown } else { CancellationReason::User }
    })
}

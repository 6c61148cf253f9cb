//! The transitions between the states of a request. They are pure: their callers do the I/O.

use super::{
    Canceled, CancellationReason, Claimed, Completed, Failed, Pending, Processing, Request, RequestCompletionResult,
    RequestData, RequestState,
};
use crate::domain::answer::Answer;
use crate::domain::outcome::{FailureReason, HttpResponse};
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

impl<S: RequestState> Request<S> {
    fn into_state<T: RequestState>(self, state: T) -> Request<T> {
        Request {
            data: self.data,
            attempt: self.attempt,
            parks: self.parks,
            has_run: self.has_run,
            spent: self.spent,
            state,
        }
    }
}

impl Request<Pending> {
    /// A request that has not been tried.
    #[must_use]
    pub fn new(data: RequestData) -> Self {
        Self {
            data,
            attempt: 0,
            parks: 0,
            has_run: false,
            spent: Usage::default(),
            state: Pending { not_before: None },
        }
    }

    /// A daemon takes the request.
    #[must_use]
    pub fn claim(self, by: Claimed) -> Request<Claimed> {
        self.into_state(by)
    }
}

impl Request<Claimed> {
    /// Whether the request has never been run under its lease.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.state.lease.token == 1 && !self.has_run
    }

    /// The call starts.
    #[must_use]
    pub fn process(self, started_at: Timestamp) -> Request<Processing> {
        let daemon_id = self.state.daemon_id;
        self.into_state(Processing { daemon_id, started_at })
    }

    /// The daemon puts the request back, untried.
    #[must_use]
    pub fn unclaim(self) -> Request<Pending> {
        self.into_state(Pending { not_before: None })
    }
}

impl Request<Processing> {
    /// The upstream answered. A success status with a JSON body completes the request; everything else fails it.
    /// `should_retry` decides whether a status can be retried, unless the upstream says so itself (`x-should-retry`).
    #[must_use]
    pub fn complete(
        self,
        response: HttpResponse,
        should_retry: &dyn Fn(&HttpResponse) -> bool,
    ) -> RequestCompletionResult {
        match response.succeeded(should_retry).and_then(Answer::of) {
            Ok(answer) => RequestCompletionResult::Completed(self.into_state(Completed { answer })),
            Err(reason) => RequestCompletionResult::Failed(self.fail(reason)),
        }
    }

    /// Answers to it have used tokens, and were of no use.
    #[must_use]
    pub fn spend(mut self, usage: Usage) -> Self {
        self.spent.add(usage);
        self
    }

    /// One of several calls has succeeded, so the attempts at the next call are counted from 0.
    #[must_use]
    pub fn progress(self) -> Self {
        Self { attempt: 0, parks: 0, ..self }
    }

    /// The call ended without a usable answer.
    #[must_use]
    pub fn fail(self, reason: FailureReason) -> Request<Failed> {
        self.fail_after(Usage::default(), reason)
    }

    /// The same after answers that used tokens. These count in the usage of the batch, unless the request is tried
    /// again, because it then goes on from the answers.
    #[must_use]
    pub fn fail_after(self, usage: Usage, reason: FailureReason) -> Request<Failed> {
        self.into_state(Failed { reason, usage })
    }

    /// The call was cancelled.
    #[must_use]
    pub fn cancel(self, reason: CancellationReason) -> Request<Canceled> {
        self.into_state(Canceled { reason })
    }
}

impl Request<Failed> {
    /// The request is to be retried, not before the given time.
    #[must_use]
    pub fn retry(self, not_before: Timestamp) -> Request<Pending> {
        Request { attempt: self.attempt + 1, parks: 0, ..self.again(not_before) }
    }

    /// The request waits for what is away, at least until the given time. The attempt that failed does not count.
    #[must_use]
    pub fn park(self, not_before: Timestamp) -> Request<Pending> {
        Request { parks: self.parks.saturating_add(1), ..self.again(not_before) }
    }

    /// The request waits again. No call was made for it, so nothing is counted.
    #[must_use]
    pub fn unsent(self) -> Request<Pending> {
        Request { has_run: true, ..self.into_state(Pending { not_before: None }) }
    }

    fn again(self, not_before: Timestamp) -> Request<Pending> {
        Request { has_run: true, ..self.into_state(Pending { not_before: Some(not_before) }) }
    }
}

impl Request<Canceled> {
    /// The request waits again. The attempt does not count.
    #[must_use]
    pub fn requeue(self) -> Request<Pending> {
        Request { has_run: true, ..self.into_state(Pending { not_before: None }) }
    }
}

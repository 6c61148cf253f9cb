//! What a row keeps of an attempt that has ended, if the row is tried again or was before.

use std::time::Duration;

use crate::domain::attempts::{AttemptFailure, AttemptOutcome, RowAttempt, RowAttempts};
use crate::domain::outcome::FailureReason;
use crate::domain::time::Timestamp;
use crate::upstream::Session;

/// An attempt that has ended.
pub(super) struct EndedAttempt<'a> {
    pub(super) started_at: Timestamp,
    pub(super) ended_at: Timestamp,
    /// Its calls.
    pub(super) session: &'a Session,
}

impl EndedAttempt<'_> {
    /// How long it took.
    pub(super) fn took(&self) -> Duration {
        self.ended_at.since(self.started_at)
    }

    /// Notes that it failed and that the row is tried again. `is_charged`: it counts as one of the row's attempts.
    pub(super) fn note(&self, attempts: &mut Option<Box<RowAttempts>>, reason: &FailureReason, is_charged: bool) {
        let why = AttemptFailure::new(reason);
        let outcome =
            if is_charged { AttemptOutcome::Failed(why) } else { AttemptOutcome::Waited { times: 1, reason: why } };
        // No call was made, so none went to the server that an earlier one went to.
        let upstream = if matches!(reason, FailureReason::HeldBack(_)) { None } else { self.session.upstream() };
        attempts.get_or_insert_default().add(self.with(upstream, outcome));
    }

    /// The attempts of a row that it has ended, the attempt among them; none if there was no other. `reason`: why the
    /// row failed, if it did.
    pub(super) fn ends(
        &self,
        attempts: Option<Box<RowAttempts>>,
        reason: Option<&FailureReason>,
    ) -> Option<Box<RowAttempts>> {
        let mut attempts = attempts?;
        let outcome =
            reason.map_or(AttemptOutcome::Completed, |reason| AttemptOutcome::Failed(AttemptFailure::new(reason)));
        attempts.end(self.with(self.session.upstream(), outcome));
        Some(attempts)
    }

    fn with(&self, upstream: Option<String>, outcome: AttemptOutcome) -> RowAttempt {
        RowAttempt { started_at: self.started_at, ended_at: self.ended_at, upstream, outcome }
    }
}

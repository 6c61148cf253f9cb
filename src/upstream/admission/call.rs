//! One call under way: how it ends is told to the admission, and remembered with its row.

use std::time::Duration;

use super::Admission;
use super::breaker::{LONGEST_PAUSE, LONGEST_PAUSE_OF_REFUSAL};
use super::judge::{RowSigns, is_server_error, shows_that_rows_are_taken};
use super::state::{CallEnd, LONG_WAIT, Sent};
use crate::domain::outcome::{BodyReading, HttpResponse};
use crate::domain::usage::Usage;

/// A row that was refused so often in a row, while others were taken, is refused for what it is: the wait that the
/// server asks for is no longer that of all rows.
const OWN_REFUSALS: u32 = 3;

/// What a row's calls so far came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallHistory {
    /// How often in a row it was refused, for whatever the server said of itself.
    refusals: u32,
    /// How many rows the server had taken at the last refusal.
    taken: u64,
    /// How many rows the server had taken when it last failed with this one.
    failed_after: Option<u64>,
    /// Whether rows of its batch were completed before this process ran any: servers took them then.
    were_others_taken: bool,
    /// The number of the server whose call was the last, unless that was a success.
    pub(in crate::upstream) failed_at: Option<u32>,
}

impl CallHistory {
    /// The history of a row without calls, of a batch of which rows were completed before, or not.
    #[must_use]
    pub fn of_batch(has_completed: bool) -> Self {
        Self { were_others_taken: has_completed, ..Self::default() }
    }
}

/// A call under way. Dropping it says that the call was given up.
#[derive(Debug)]
pub(in crate::upstream) struct AdmittedCall<'a> {
    admission: &'a Admission,
    sent: Sent,
    taken_before: u64,
    is_over: bool,
}

impl<'a> AdmittedCall<'a> {
    pub(super) fn new(admission: &'a Admission, sent: Sent) -> Self {
        Self { admission, sent, taken_before: admission.served.taken(), is_over: false }
    }

    /// What is known of the row that the call is for.
    pub(in crate::upstream) fn signs(&self, history: CallHistory) -> RowSigns {
        let has_taken_others = self.has_taken_others() || self.has_taken_others_since(history);
        let all_fail = self.admission.served.all_fail(self.admission.now(), history.were_others_taken);
        RowSigns { has_taken_others, all_fail, refusals: history.refusals }
    }

    /// The server's answer is the row's.
    pub(in crate::upstream) fn answered(mut self, response: &HttpResponse, history: &mut CallHistory) {
        let Admission { served, of, .. } = self.admission;
        if shows_that_rows_are_taken(response) {
            served.note_taken(self.admission.now());
        }
        let failed_after = is_server_error(response).then(|| served.taken());
        let is_known = history.failed_at == Some(of.server_no) && history.failed_after == failed_after;
        if failed_after.is_some() && !is_known {
            served.note_failed();
        }
        let is_success = response.is_success();
        self.admission.note_success(is_success);
        let failed_at = (!is_success).then_some(of.server_no);
        // A row that was charged for its refusals is charged for the next one too.
        let before = if is_success { CallHistory::of_batch(history.were_others_taken) } else { *history };
        *history = CallHistory { failed_after, failed_at, ..before };
        let stated = |count: fn(&Usage) -> u64| match &response.reading {
            BodyReading::Answer(usage) => Some(count(usage)).filter(|count| *count > 0),
            BodyReading::Unread | BodyReading::Unreadable(_) => None,
        };
        let (output_tokens, total_tokens) = (stated(|usage| usage.output_tokens), stated(|usage| usage.total_tokens));
        self.over(CallEnd::Answered { is_success, output_tokens, total_tokens }, Some(response));
    }

    /// The server takes no further call now.
    pub(in crate::upstream) fn refused(mut self, response: &HttpResponse, reason: String, history: &mut CallHistory) {
        let is_own = self.has_taken_others_since(*history);
        // So is a long one at once, if others were taken since the row was refused before.
        let is_own_wait = |wait: &Duration| is_own && (history.refusals >= OWN_REFUSALS || *wait > LONG_WAIT);
        let retry_after = response.retry_after.filter(|wait| !is_own_wait(wait));
        self.count(history);
        let has_taken_others = self.has_taken_others();
        self.over(CallEnd::Refused { retry_after, reason, has_taken_others }, Some(response));
    }

    /// The server is not there: why.
    pub(in crate::upstream) fn gone(
        mut self,
        retry_after: Option<Duration>,
        reason: String,
        history: &mut CallHistory,
    ) {
        self.count(history);
        self.over(CallEnd::Unavailable { retry_after, reason, longest_pause: LONGEST_PAUSE }, None);
    }

    /// The server takes no row at all: why.
    pub(in crate::upstream) fn unavailable(
        mut self,
        retry_after: Option<Duration>,
        reason: String,
        history: &mut CallHistory,
    ) {
        self.count(history);
        // The list of models may have been asked for since the refusal: rows that were taken meanwhile came after it.
        history.taken = self.taken_before;
        let longest_pause = LONGEST_PAUSE_OF_REFUSAL;
        self.over(CallEnd::Unavailable { retry_after, reason, longest_pause }, None);
    }

    /// Whether the server has taken another row since the call was sent.
    fn has_taken_others(&self) -> bool {
        self.admission.served.taken() != self.taken_before
    }

    /// Whether the server has taken another row since it refused this one.
    fn has_taken_others_since(&self, history: CallHistory) -> bool {
        // Another server's count says nothing of this one.
        let is_here = history.failed_at == Some(self.admission.of.server_no);
        is_here && history.refusals > 0 && self.admission.served.taken() != history.taken
    }

    fn count(&self, history: &mut CallHistory) {
        let Admission { served, of, .. } = self.admission;
        let (taken, failed_at) = (served.taken(), Some(of.server_no));
        *history = CallHistory { refusals: history.refusals.saturating_add(1), taken, failed_at, ..*history };
    }

    fn over(&mut self, end: CallEnd, response: Option<&HttpResponse>) {
        self.is_over = true;
        let rate_limits = response.and_then(|response| response.rate_limits.as_deref());
        self.admission.end(self.sent, end, rate_limits);
    }
}

impl Drop for AdmittedCall<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.over(CallEnd::Abandoned, None);
        }
    }
}

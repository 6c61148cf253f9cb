//! The outbox: outcomes of rows that wait for the recorder.

use std::sync::Arc;
use std::time::Duration;

use crate::daemon::rows::ClaimedRow;
use crate::domain::attempts::RowAttempts;
use crate::domain::failures::RowFailure;
use crate::domain::line;
use crate::domain::outcome::FailureReason;
use crate::domain::usage::Usage;
use crate::storage::group_commit::{Gathering, Group, GroupCommit};

/// A group is due after a quarter of a second, or when its lines have 8 MiB. The outbox has room for 64 MiB, which
/// bounds memory when the storage is slower than the upstream. Weights are in bytes.
const GATHERING: Gathering = Gathering { longest: Duration::from_millis(250), due: 8 << 20, room: 64 << 20 };

/// The line of a row, for the output file if it is a success, else for the error file.
pub(in crate::daemon) struct RowOutcome {
    pub(in crate::daemon) row: ClaimedRow,
    pub(in crate::daemon) model: Arc<str>,
    /// How it failed; `None` if it succeeded.
    pub(in crate::daemon) failure: Option<Box<RowFailure>>,
    /// JSON, with the newline at its end.
    pub(in crate::daemon) line: Vec<u8>,
    pub(in crate::daemon) usage: Usage,
    /// Its attempts, if it was tried again.
    pub(in crate::daemon) attempts: Option<Box<RowAttempts>>,
}

impl RowOutcome {
    /// That of a row that failed for a reason.
    pub(in crate::daemon) fn failed(
        row: ClaimedRow,
        model: Arc<str>,
        custom_id: &str,
        reason: &FailureReason,
        usage: Usage,
    ) -> Self {
        let failure = Some(Box::new(RowFailure::new(custom_id, reason)));
        Self { row, model, failure, line: line::failed(row.id, custom_id, reason), usage, attempts: None }
    }
}

/// The outcomes that wait to be recorded.
pub(in crate::daemon) struct Outbox(GroupCommit<RowOutcome>);

impl Outbox {
    pub(in crate::daemon) fn new() -> Self {
        Self(GroupCommit::new(GATHERING))
    }

    /// Hands in an outcome. Returns when there is room for it.
    pub(in crate::daemon) async fn push(&self, outcome: RowOutcome) {
        let bytes = outcome.line.len() + outcome.attempts.as_ref().map_or(0, |attempts| attempts.bytes());
        // An error says that the recorder is gone: the row stays owed.
        let _ = self.0.push(outcome, bytes).await;
    }

    /// Returns when all outcomes that were handed in before are recorded.
    pub(in crate::daemon) async fn flush(&self) {
        self.0.settle().await;
    }

    /// Lets the recorder end when it has recorded what is here. No outcome is handed in after it.
    pub(in crate::daemon) fn close(&self) {
        self.0.close();
    }

    /// Releases all tasks that wait for the recorder, because it is gone. The rows of what it has not recorded stay
    /// owed.
    pub(in crate::daemon) fn abandon(&self) {
        self.0.abandon();
    }

    pub(super) async fn next(&self) -> Option<Group<RowOutcome>> {
        self.0.next().await
    }
}

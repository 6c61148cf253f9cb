//! Outcomes of rows on their way to the recorder.

use std::time::Duration;

use crate::daemon::rows::ClaimedRow;
use crate::domain::usage::Usage;
use crate::storage::group_commit::{Gathering, Group, GroupCommit};

/// Outcomes wait for each other for a quarter of a second, or until their lines have 8 MiB. Those that wait for the recorder
/// have 64 MiB, which bounds memory when the storage is slower than the upstream. Weights are in bytes.
const GATHERING: Gathering = Gathering { longest: Duration::from_millis(250), due: 8 << 20, room: 64 << 20 };

/// What became of a row.
pub(in crate::daemon) struct RowOutcome {
    pub(in crate::daemon) row: ClaimedRow,
    pub(in crate::daemon) is_success: bool,
    pub(in crate::daemon) line: Vec<u8>,
    pub(in crate::daemon) usage: Usage,
}

/// Where outcomes are handed in, and where the recorder takes them.
pub(in crate::daemon) struct Outbox(GroupCommit<RowOutcome>);

impl Outbox {
    pub(in crate::daemon) fn new() -> Self {
        Self(GroupCommit::new(GATHERING))
    }

    /// Hands in a success. Returns when there is room for it.
    pub(in crate::daemon) async fn completed(&self, row: ClaimedRow, line: Vec<u8>, usage: Usage) {
        self.push(RowOutcome { row, is_success: true, line, usage }).await;
    }

    /// Hands in a failure. Returns when there is room for it.
    pub(in crate::daemon) async fn failed(&self, row: ClaimedRow, line: Vec<u8>) {
        self.push(RowOutcome { row, is_success: false, line, usage: Usage::default() }).await;
    }

    async fn push(&self, outcome: RowOutcome) {
        let bytes = outcome.line.len();
        // An error: the recorder is gone, and the row stays owed.
        let _ = self.0.push(outcome, bytes).await;
    }

    /// Returns when everything that was handed in before is recorded.
    pub(in crate::daemon) async fn flush(&self) {
        self.0.settle().await;
    }

    /// Nothing more is handed in: the recorder records what is here, and ends.
    pub(in crate::daemon) fn close(&self) {
        self.0.close();
    }

    /// The recorder is gone: nobody waits for it any more, and what it has not recorded is owed.
    pub(in crate::daemon) fn abandon(&self) {
        self.0.abandon();
    }

    pub(super) async fn next(&self) -> Option<Group<RowOutcome>> {
        self.0.next().await
    }
}

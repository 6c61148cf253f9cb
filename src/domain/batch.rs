//! Batches: one run over the rows of one input file (contract §6 and §7).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::batch_endpoint::BatchEndpoint;
use super::canary::Canary;
use super::ids::{BatchId, FileId};
use super::owner::Owner;
use super::pause::Pause;
use super::request_key::{Fingerprint, RequestKey};
use super::text_enum::text_enum;
use super::time::Timestamp;
use super::usage::Usage;
use super::webhook::BatchWebhook;

text_enum! {
    /// The status of a batch.
    ///
    /// ```text
    /// Validating --admit--> InProgress --last row, window over, no input--> Finalizing --finish--> Completed | Expired
    ///     |                     |                                            |
    ///     |--refuse--> Failed   |                                            |
    ///     '----cancel-----------+------------cancel--------------------------'--> Cancelling --finish--> Cancelled
    /// ```
    pub enum BatchStatus {
        /// Created. Its input file is not validated yet.
        Validating = "validating",
        /// Refused: the input file cannot be run. Terminal.
        Failed = "failed",
        /// Its rows are being run.
        InProgress = "in_progress",
        /// No more rows start; the remaining lines are being written.
        Finalizing = "finalizing",
        /// Every row has run. Terminal.
        Completed = "completed",
        /// The window closed before every row had run. Terminal.
        Expired = "expired",
        /// Its owner cancelled it; calls in flight are being stopped.
        Cancelling = "cancelling",
        /// Cancelled. Terminal.
        Cancelled = "cancelled",
    }
}

impl BatchStatus {
    /// Whether rows start in this status, or will.
    #[must_use]
    pub fn starts_rows(self) -> bool {
        matches!(self, Self::Validating | Self::InProgress)
    }

    /// Whether the status can never change again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Completed | Self::Expired | Self::Cancelled)
    }

    /// The terminal status that follows. A batch that was called off is cancelled. Any other is completed if every row
    /// has run, even if its window closed meanwhile, or if those that never ran (`rows_are_left`) count as failed.
    #[must_use]
    pub fn ended(self, rows_are_left: bool, they_count_as_failed: bool) -> Self {
        match self {
            Self::Cancelling => Self::Cancelled,
            _ if !rows_are_left || they_count_as_failed => Self::Completed,
            _ => Self::Expired,
        }
    }
}

/// A batch to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBatch {
    /// The file id as the client gave it. Whether the file exists is checked by the daemon (contract §8.1).
    pub input_file_id: String,
    /// The endpoint that every row must be for.
    pub endpoint: BatchEndpoint,
    /// The window as the client wrote it, and how long it is.
    pub window: Window,
    /// The client's metadata: the text of a JSON object whose values are strings.
    pub metadata: Option<String>,
    /// How long the result files are kept; [`BATCH_FILE_RETENTION`](super::file::BATCH_FILE_RETENTION) if unset.
    pub output_expires_after: Option<Duration>,
    /// Two requests of one owner with the same key create one batch.
    pub idempotency_key: Option<String>,
    /// The rows that run first, which the metadata asks for.
    pub canary: Option<Canary>,
    /// The batch whose rows it runs again.
    pub retry: Option<BatchRetry>,
    /// Who is told how it ends, beside the receivers of the settings.
    pub webhook: Option<BatchWebhook>,
    /// Whether Anthropic's Message Batches lists it.
    pub is_message_batch: bool,
}

impl NewBatch {
    /// The key of the request of a batch of a file. The parameters are compared with those of the batch.
    #[must_use]
    pub fn request_key(&self) -> Option<RequestKey> {
        let fingerprint = Fingerprint::of("a batch of a file").finish();
        self.idempotency_key.clone().map(|key| RequestKey { key, fingerprint })
    }
}

/// What a batch runs again: rows of another batch of the same owner that failed or never ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRetry {
    /// The other batch.
    pub of: BatchId,
    /// Which rows, and with which changes.
    pub options: RetryOptions,
}

/// Which rows of a batch are run again, and what is changed in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryOptions {
    /// Only rows whose failure has one of these codes; all if empty.
    pub codes: Vec<String>,
    /// Members that replace those of each body, as the text of a JSON object. One that is null is removed.
    pub body: Option<String>,
}

/// A completion window: a deadline for the whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The text as the client wrote it, such as `24h`. The batch object repeats it.
    pub text: String,
    /// The length of the window; more than zero.
    pub length: Duration,
}

/// A batch as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Its owner, who owns its output and error file too.
    pub owner: Owner,
    /// The id of its input file as the client gave it.
    pub input_file_id: String,
    /// The endpoint of its rows.
    pub endpoint: BatchEndpoint,
    /// The window as the client wrote it.
    pub completion_window: String,
    /// Its status.
    pub status: BatchStatus,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its window closes.
    pub expires_at: Timestamp,
    /// When each later status was reached.
    pub milestones: Milestones,
    /// The model, if all its rows name the same one.
    pub model: Option<String>,
    /// How many rows it has, and how many of them have run.
    pub counts: Counts,
    /// Tokens its rows used so far.
    pub usage: Usage,
    /// The client's metadata: the text of a JSON object whose values are strings.
    pub metadata: Option<String>,
    /// The reasons why it was refused; empty unless it is [`BatchStatus::Failed`].
    pub errors: Vec<BatchError>,
    /// The file its successful rows go to; shown by [`Batch::output_file`].
    pub output_file_id: FileId,
    /// The file its other rows go to; shown by [`Batch::error_file`].
    pub error_file_id: FileId,
    /// How long those files are kept once the batch has ended;
    /// [`BATCH_FILE_RETENTION`](super::file::BATCH_FILE_RETENTION) if unset.
    pub output_expires_after: Option<Duration>,
    /// None if its rows may start, and none of a batch that starts no rows any more.
    pub pause: Option<Pause>,
    /// The batch whose rows it runs again.
    pub retry: Option<BatchRetry>,
    /// The URL that is told how it ends, beside the receivers of the settings. Not shown to clients.
    pub webhook_url: Option<String>,
}

/// When a batch reached each of its statuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Milestones {
    /// It passed validation.
    pub in_progress_at: Option<Timestamp>,
    /// Its last row was recorded, or its window closed.
    pub finalizing_at: Option<Timestamp>,
    /// It became completed.
    pub completed_at: Option<Timestamp>,
    /// It was refused.
    pub failed_at: Option<Timestamp>,
    /// It became expired.
    pub expired_at: Option<Timestamp>,
    /// Its owner cancelled it.
    pub cancelling_at: Option<Timestamp>,
    /// It became cancelled.
    pub cancelled_at: Option<Timestamp>,
}

impl Milestones {
    /// When it ended, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Timestamp> {
        self.completed_at.or(self.failed_at).or(self.expired_at).or(self.cancelled_at)
    }
}

/// How many rows a batch has, and how many of them have run. Rows that never ran count neither as completed nor as
/// failed (contract §6.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All rows; 0 until the batch has passed validation, or has ended if it was called off before.
    pub total: u64,
    /// Rows answered with success: the lines of the output file.
    pub completed: u64,
    /// Rows that ran and failed.
    pub failed: u64,
}

impl Counts {
    /// Rows that have no recorded outcome.
    #[must_use]
    pub fn owed(self) -> u64 {
        self.total.saturating_sub(self.completed + self.failed)
    }
}

impl Batch {
    /// The output file, once the batch has ended with at least one successful row.
    #[must_use]
    pub fn output_file(&self) -> Option<FileId> {
        (self.status.is_terminal() && self.counts.completed > 0).then_some(self.output_file_id)
    }

    /// The error file, once the batch has ended with at least one row that did not succeed.
    #[must_use]
    pub fn error_file(&self) -> Option<FileId> {
        (self.status.is_terminal() && self.counts.completed < self.counts.total).then_some(self.error_file_id)
    }
}

/// One reason why a batch was refused: an element of `errors.data` (contract §8.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchError {
    /// The error code.
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
    /// The member at fault, as a dotted path.
    pub param: Option<String>,
    /// The line of the input file, counted from 1; none if the whole file is at fault.
    pub line: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_are_left_decide_how_a_batch_ends_unless_it_was_called_off() {
        use BatchStatus::{Cancelled, Cancelling, Completed, Expired, Finalizing};
        // The status before, whether rows are left, whether they count as failed: the status after.
        let cases = [
            (Finalizing, false, false, Completed),
            (Finalizing, false, true, Completed),
            (Finalizing, true, false, Expired),
            (Finalizing, true, true, Completed),
            (Cancelling, false, false, Cancelled),
            (Cancelling, false, true, Cancelled),
            (Cancelling, true, false, Cancelled),
            (Cancelling, true, true, Cancelled),
        ];
        for (from, rows_are_left, they_count_as_failed, expected) in cases {
            assert_eq!(
                from.ended(rows_are_left, they_count_as_failed),
                expected,
                "{from} {rows_are_left} {they_count_as_failed}"
            );
        }
    }
}

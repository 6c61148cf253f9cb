//! The message batch as clients see it.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

use super::origin::PublicOrigin;
use super::printed;
use crate::api::{ApiError, App};
use crate::domain::batch::{Batch, BatchStatus};
use crate::domain::ids::FileId;
use crate::domain::time::Timestamp;

/// A batch of requests for messages.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageBatchObject {
    /// `msgbatch_` and 32 hexadecimal digits: those of the batch in OpenAI's API.
    id: String,
    /// Always `message_batch`.
    #[serde(rename = "type")]
    object: &'static str,
    /// `in_progress`, `canceling` or `ended`.
    processing_status: &'static str,
    request_counts: MessageBatchCounts,
    /// When its processing ended; this and all times in RFC 3339.
    #[schema(required)]
    ended_at: Option<String>,
    created_at: String,
    /// When its processing ends at the latest.
    expires_at: String,
    /// Always null: what has been deleted is not found any more.
    #[schema(required)]
    archived_at: Option<String>,
    /// When it was canceled.
    #[schema(required)]
    cancel_initiated_at: Option<String>,
    /// Where the results are once it has ended, at the host that the request was sent to.
    #[schema(required)]
    results_url: Option<String>,
}

/// How many requests a batch has: all are `processing` until it has ended.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct MessageBatchCounts {
    processing: u64,
    succeeded: u64,
    errored: u64,
    canceled: u64,
    expired: u64,
}

/// A message batch that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedMessageBatch {
    pub(super) id: String,
    /// Always `message_batch_deleted`.
    #[serde(rename = "type")]
    pub(super) object: &'static str,
}

impl MessageBatchObject {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A batch as it is.
    ///
    /// # Errors
    /// The storage does not say how many rows it has.
    pub(super) async fn read(app: &App, batch: Batch, origin: &PublicOrigin) -> Result<Self, ApiError> {
        // A batch has its total once it has passed validation, which its requests have done before.
        let rows = match (batch.counts.total, FileId::parse(&batch.input_file_id)) {
            (0, Some(file)) => app.storage.file_report(&batch.owner, file).await?.map_or(0, |report| report.rows),
            (total, _) => total,
        };
        Ok(Self::of(&batch, rows, origin))
    }

    /// A batch that has so many rows.
    pub(super) fn of(batch: &Batch, rows: u64, PublicOrigin(origin): &PublicOrigin) -> Self {
        let id = printed(batch.id);
        let has_ended = batch.status.is_terminal();
        let reached = batch.milestones;
        let ended_at = [reached.completed_at, reached.failed_at, reached.expired_at, reached.cancelled_at];
        Self {
            object: "message_batch",
            processing_status: match batch.status {
                _ if has_ended => "ended",
                BatchStatus::Cancelling => "canceling",
                _ => "in_progress",
            },
            request_counts: counts(batch, rows),
            ended_at: ended_at.into_iter().flatten().next().map(rfc3339),
            created_at: rfc3339(batch.created_at),
            expires_at: rfc3339(batch.expires_at),
            archived_at: None,
            cancel_initiated_at: reached.cancelling_at.map(rfc3339),
            results_url: has_ended.then(|| format!("{origin}/v1/messages/batches/{id}/results")),
            id,
        }
    }
}

fn counts(batch: &Batch, rows: u64) -> MessageBatchCounts {
    let (succeeded, errored) = (batch.counts.completed, batch.counts.failed);
    let never_ran = rows.saturating_sub(succeeded + errored);
    let ended = MessageBatchCounts { succeeded, errored, ..MessageBatchCounts::default() };
    match batch.status {
        BatchStatus::Cancelled => MessageBatchCounts { canceled: never_ran, ..ended },
        BatchStatus::Expired => MessageBatchCounts { expired: never_ran, ..ended },
        status if status.is_terminal() => MessageBatchCounts { errored: errored + never_ran, ..ended },
        _ => MessageBatchCounts { processing: rows, ..MessageBatchCounts::default() },
    }
}

fn rfc3339(time: Timestamp) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(time.0).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}

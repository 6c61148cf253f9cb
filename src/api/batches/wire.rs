//! A batch as it is on the wire: 22 keys, each always there (contract §6).

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::batch::{Batch, BatchError, Counts};
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

/// A batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchObject {
    /// `batch_` and 32 hexadecimal digits.
    pub(super) id: String,
    /// Always `batch`.
    object: &'static str,
    /// The endpoint of its rows.
    endpoint: &'static str,
    /// The model, if all its rows name the same one.
    #[schema(required)]
    model: Option<String>,
    /// Why it failed validation.
    #[schema(required)]
    errors: Option<BatchErrors>,
    /// The file with its rows.
    input_file_id: String,
    /// The window it was given.
    completion_window: String,
    /// `validating`, `failed`, `in_progress`, `finalizing`, `completed`, `expired`, `cancelling` or `cancelled`.
    status: &'static str,
    /// The file with the lines of rows that succeeded.
    #[schema(required)]
    output_file_id: Option<String>,
    /// The file with the lines of all other rows.
    #[schema(required)]
    error_file_id: Option<String>,
    /// Unix seconds, as all times.
    created_at: i64,
    /// When it passed validation.
    #[schema(required)]
    in_progress_at: Option<i64>,
    /// When its window closes.
    #[schema(required)]
    expires_at: Option<i64>,
    /// When its last row was recorded, or its window closed.
    #[schema(required)]
    finalizing_at: Option<i64>,
    /// When it became completed.
    #[schema(required)]
    completed_at: Option<i64>,
    /// When it failed.
    #[schema(required)]
    failed_at: Option<i64>,
    /// When it became expired.
    #[schema(required)]
    expired_at: Option<i64>,
    /// When it was cancelled.
    #[schema(required)]
    cancelling_at: Option<i64>,
    /// When it became cancelled.
    #[schema(required)]
    cancelled_at: Option<i64>,
    /// How many rows it has, and how many of them have run: 0 until it has passed validation, or has ended as
    /// `cancelled`, and for good if its input is bad.
    #[schema(value_type = RequestCounts)]
    request_counts: Counts,
    /// The tokens they used.
    usage: BatchUsage,
    /// The client's metadata.
    #[schema(required, value_type = Option<std::collections::BTreeMap<String, String>>)]
    metadata: Option<Box<RawValue>>,
}

/// How many rows a batch has, and how many have run.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes `Counts` in the OpenAPI document")]
pub struct RequestCounts {
    /// All rows.
    total: u64,
    /// Rows that succeeded.
    completed: u64,
    /// Rows that ran and failed.
    failed: u64,
}

/// Why a batch failed validation.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchErrors {
    object: &'static str,
    #[schema(value_type = Vec<BatchErrorObject>)]
    data: Vec<BatchError>,
}

/// One reason.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes `BatchError` in the OpenAPI document")]
pub struct BatchErrorObject {
    code: String,
    message: String,
    #[schema(required)]
    param: Option<String>,
    /// The line of the input file, counted from 1.
    #[schema(required)]
    line: Option<u64>,
}

/// Tokens, in the names of the Responses API for every endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchUsage {
    input_tokens: u64,
    input_tokens_details: InputTokensDetails,
    output_tokens: u64,
    output_tokens_details: OutputTokensDetails,
    total_tokens: u64,
}

/// Of the input tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct InputTokensDetails {
    cached_tokens: u64,
}

/// Of the output tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputTokensDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for BatchUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputTokensDetails { cached_tokens: usage.cached_tokens },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.total_tokens,
        }
    }
}

impl From<Batch> for BatchObject {
    fn from(batch: Batch) -> Self {
        let at = |time: Option<Timestamp>| time.map(Timestamp::seconds);
        let reached = batch.milestones;
        Self {
            id: batch.id.to_string(),
            object: "batch",
            endpoint: batch.endpoint.as_str(),
            output_file_id: batch.output_file().map(|id| id.to_string()),
            error_file_id: batch.error_file().map(|id| id.to_string()),
            model: batch.model,
            errors: (!batch.errors.is_empty()).then_some(BatchErrors { object: "list", data: batch.errors }),
            input_file_id: batch.input_file_id,
            completion_window: batch.completion_window,
            status: batch.status.as_str(),
            created_at: batch.created_at.seconds(),
            in_progress_at: at(reached.in_progress_at),
            expires_at: Some(batch.expires_at.seconds()),
            finalizing_at: at(reached.finalizing_at),
            completed_at: at(reached.completed_at),
            failed_at: at(reached.failed_at),
            expired_at: at(reached.expired_at),
            cancelling_at: at(reached.cancelling_at),
            cancelled_at: at(reached.cancelled_at),
            request_counts: batch.counts,
            usage: batch.usage.into(),
            // It was checked at creation. Metadata that cannot be read back is shown as none.
            metadata: batch.metadata.and_then(|json| RawValue::from_string(json).ok()),
        }
    }
}

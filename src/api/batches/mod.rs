//! `/v1/batches`: one file for each operation.

mod body;
mod cancel;
mod create;
mod events;
mod get;
mod list;
mod metadata;
mod of_rows;
mod pause;
mod progress;
mod request_body;
mod requests;
mod results;
mod resume;
mod retry;
mod webhook;
mod wire;

pub(super) use cancel::{__path_cancel_batch, cancel_batch};
pub(super) use create::{__path_create_batch, create_batch};
pub(super) use events::{__path_list_batch_events, list_batch_events};
pub(super) use get::{__path_get_batch, get_batch};
pub(super) use list::{__path_list_batches, list_batches};
pub(super) use pause::{__path_pause_batch, pause_batch};
pub(super) use progress::{__path_get_batch_progress, get_batch_progress};
pub(super) use requests::{__path_get_batch_request, __path_list_request_steps, get_batch_request, list_request_steps};
pub(super) use results::{__path_list_batch_results, HAS_ENDED, NEXT_CURSOR, list_batch_results};
pub(super) use resume::{__path_resume_batch, resume_batch};
pub(super) use wire::BatchObject;

use super::ApiError;
use crate::domain::ids::BatchId;
use crate::domain::row::shown;

/// Reads the id a path names (contract §8.2).
fn parse_id(id: &str) -> Result<BatchId, ApiError> {
    if !id.starts_with("batch") {
        let message = format!("Invalid 'batch_id': '{}'. Expected an ID that begins with 'batch'.", shown(id));
        return Err(ApiError::invalid(message).at("batch_id").code("invalid_value"));
    }
    BatchId::parse(id).ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("No batch found with id '{}'.", shown(id)))
}

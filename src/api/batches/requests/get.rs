//! `GET /v1/batches/{batch_id}/requests/{custom_id}`: one request, while its batch runs and after.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{NamedRequest, find};
use crate::actions::request_state;
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};
use crate::domain::ids::RequestId;
use crate::domain::row::shown;

/// One request of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchRequestObject {
    /// Always `batch.request`.
    object: &'static str,
    /// `batch_req_` and 32 hexadecimal digits, as in its result line.
    #[schema(value_type = String)]
    id: RequestId,
    /// The batch.
    batch_id: String,
    /// The client's name for it.
    custom_id: String,
    /// Its number in the input file, counted from 0 without blank lines.
    row: u32,
    /// `pending`, `in_progress`, `completed`, `failed`, `cancelled` or `expired`.
    state: &'static str,
    /// Calls made for it so far, of models and of tools; null for requests of one call, whose attempts are not kept.
    #[schema(required)]
    attempts: Option<u32>,
    /// Its line in the output or error file, as soon as that is written.
    #[schema(required, value_type = Option<Object>)]
    result: Option<Box<RawValue>>,
}

/// Retrieves one request of a batch, while the batch runs and after.
///
/// An extension of batchwright: OpenAI's API has no such operation.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/requests/{custom_id}", tag = "extensions",
    params(
        ("batch_id" = String, Path, pattern = "^batch"),
        ("custom_id" = String, Path, description = "Percent-encoded, slashes too")
    ),
    responses((status = 200, body = BatchRequestObject), (status = 404, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn get_batch_request(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id((batch_id, custom_id)): Id<(String, String)>,
) -> Result<Json<BatchRequestObject>, ApiError> {
    let NamedRequest { batch, reader, row } = find(&app, &owner, &batch_id, &custom_id).await?;
    let stands = request_state(&*app.storage, &app.blobs, &owner, &batch, &reader, row, app.clock.now()).await?;
    let (state, line) = stands.ok_or_else(|| {
        let custom_id = shown(&custom_id);
        ApiError::not_found(format!("The file with the result of request '{custom_id}' was deleted or has expired."))
    })?;
    let id = RequestId { batch: batch.id, row };
    let steps = app.storage.steps(&owner, id).await?;
    let calls = steps.iter().map(|step| step.attempts).sum();
    Ok(Json(BatchRequestObject {
        object: "batch.request",
        id,
        batch_id,
        custom_id,
        row,
        state: state.as_str(),
        attempts: (!steps.is_empty()).then_some(calls),
        result: line.and_then(|line| serde_json::from_slice(&line).ok()),
    }))
}

//! `POST /v1/batches/{batch_id}/resume` (an extension). A body is ignored.

use axum::Json;
use axum::extract::State;

use super::{BatchObject, not_found, parse_id};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Resumes a paused batch, whatever paused it. Resuming a batch that is not paused changes nothing.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/resume", tag = "batches",
    params(("batch_id" = String, Path, pattern = "^batch")),
    responses(
        (status = 200, body = BatchObject),
        (status = 404, body = crate::api::error::ErrorBody),
        (status = 409, description = "It starts no rows any more", body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn resume_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<BatchObject>, ApiError> {
    let resumed = app.storage.resume_batch(&owner, parse_id(&id)?).await?;
    let batch = resumed.ok_or_else(|| not_found(&id))?;
    if !batch.status.starts_rows() {
        return Err(ApiError::conflict(format!("Cannot resume a batch with status '{}'.", batch.status)));
    }
    tracing::info!(batch_id = %batch.id, "batch resumed");
    app.wakeup.wake();
    Ok(Json(batch.into()))
}

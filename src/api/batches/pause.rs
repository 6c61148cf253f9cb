//! `POST /v1/batches/{batch_id}/pause` (an extension). A body is ignored.

use axum::Json;
use axum::extract::State;

use super::{BatchObject, not_found, parse_id};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Pauses a batch: within about a second no row of it starts any more. Rows under way end and are recorded, and the
/// window goes on. The status stays as it is. Pausing a batch that is paused changes nothing.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/pause", tag = "batches",
    params(("batch_id" = String, Path, pattern = "^batch")),
    responses(
        (status = 200, body = BatchObject),
        (status = 404, body = crate::api::error::ErrorBody),
        (status = 409, description = "It starts no rows any more", body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn pause_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<BatchObject>, ApiError> {
    let paused = app.storage.pause_batch(&owner, parse_id(&id)?, app.clock.now()).await?;
    let batch = paused.ok_or_else(|| not_found(&id))?;
    if !batch.status.starts_rows() {
        return Err(ApiError::conflict(format!("Cannot pause a batch with status '{}'.", batch.status)));
    }
    tracing::info!(batch_id = %batch.id, "batch paused");
    app.wakeup.wake();
    Ok(Json(batch.into()))
}

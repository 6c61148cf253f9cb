//! `POST /v1/batches/{batch_id}/cancel` (contract §8.5). A body, and a content type without one, are ignored.

use axum::Json;
use axum::extract::State;

use super::{BatchObject, not_found, parse_id};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};
use crate::domain::batch::BatchStatus;

/// Cancels a batch. Rows that have run keep their lines; each of the others gets an error line. A batch that is
/// cancelled while it is `validating`, and would have failed, ends with no lines, and its `request_counts` are 0.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/cancel", tag = "batches",
    params(("batch_id" = String, Path, pattern = "^batch")),
    responses(
        (status = 200, body = BatchObject),
        (status = 404, body = crate::api::error::ErrorBody),
        (status = 409, description = "It has ended", body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn cancel_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<BatchObject>, ApiError> {
    let cancelled = app.storage.cancel_batch(&owner, parse_id(&id)?, app.clock.now()).await?;
    let batch = cancelled.ok_or_else(|| not_found(&id))?;
    if batch.status.is_terminal() && batch.status != BatchStatus::Cancelled {
        return Err(ApiError::conflict(format!("Cannot cancel a batch with status '{}'.", batch.status)));
    }
    app.wakeup.wake();
    Ok(Json(batch.into()))
}

//! `GET /v1/batches/{batch_id}` (contract §8.4).

use axum::Json;
use axum::extract::State;

use super::{BatchObject, not_found, parse_id};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Retrieves a batch.
#[utoipa::path(get, path = "/v1/batches/{batch_id}", tag = "batches",
    params(("batch_id" = String, Path, pattern = "^batch")), responses(
    (status = 200, body = BatchObject),
    (status = 404, body = crate::api::error::ErrorBody)
))]
pub(in crate::api) async fn get_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<BatchObject>, ApiError> {
    let batch = app.storage.batch(&owner, parse_id(&id)?).await?.ok_or_else(|| not_found(&id))?;
    Ok(Json(batch.into()))
}

//! `GET /v1/files/{file_id}` (contract §4.1).

use axum::Json;
use axum::extract::State;

use super::{FileObject, find};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Retrieves a file.
#[utoipa::path(get, path = "/v1/files/{file_id}", tag = "files", params(("file_id" = String, Path,)), responses(
    (status = 200, body = FileObject),
    (status = 404, body = crate::api::error::ErrorBody)
))]
pub(in crate::api) async fn get_file(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<FileObject>, ApiError> {
    Ok(Json(find(&app, &owner, &id).await?.into()))
}

//! `DELETE /v1/files/{file_id}` (contract §4.2).

use axum::Json;
use axum::extract::State;

use super::{DeletedFile, find};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Deletes a file. A batch that runs it goes on to its end.
#[utoipa::path(delete, path = "/v1/files/{file_id}", tag = "files", params(("file_id" = String, Path,)), responses(
    (status = 200, body = DeletedFile),
    (status = 404, body = crate::api::error::ErrorBody)
))]
pub(in crate::api) async fn delete_file(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<DeletedFile>, ApiError> {
    let file = find(&app, &owner, &id).await?;
    // Two deletions at once: both find it, one deletes it, and for both it is gone.
    app.storage.delete_file(&owner, file.id, app.clock.now()).await?;
    Ok(Json(DeletedFile { object: "file", deleted: true, id }))
}

//! `POST /v1/uploads/{upload_id}/cancel` (contract §5.4). A body, and a content type without one, are ignored.

use axum::Json;
use axum::extract::State;

use super::{UploadObject, check_is_pending, find};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};
use crate::domain::upload::{Upload, UploadStatus};

/// Gives an upload up. One that is cancelled already is returned as it is.
#[utoipa::path(post, path = "/v1/uploads/{upload_id}/cancel", tag = "uploads",
    params(("upload_id" = String, Path,)),
    responses((status = 200, body = UploadObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 404, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn cancel_upload(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<UploadObject>, ApiError> {
    let upload = find(&app, &owner, &id).await?;
    if app.storage.cancel_upload(&owner, upload.id, app.clock.now()).await? {
        return Ok(Json(Upload { status: UploadStatus::Cancelled, ..upload }.into()));
    }
    let upload = find(&app, &owner, &id).await?;
    if upload.status != UploadStatus::Cancelled {
        check_is_pending(&upload, "The upload cannot be cancelled")?;
    }
    Ok(Json(upload.into()))
}

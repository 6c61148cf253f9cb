//! `/v1/uploads`: one file for each operation (contract §5).

mod add_part;
mod cancel;
mod complete;
mod create;
mod wire;

pub(super) use add_part::{__path_add_upload_part, add_upload_part};
pub(super) use cancel::{__path_cancel_upload, cancel_upload};
pub(super) use complete::{__path_complete_upload, complete_upload};
pub(super) use create::{__path_create_upload, create_upload};
pub(super) use wire::{UploadObject, UploadPartObject};

use super::{ApiError, App};
use crate::domain::ids::UploadId;
use crate::domain::owner::Owner;
use crate::domain::row::shown;
use crate::domain::upload::{Upload, UploadStatus};

/// Finds the upload of an owner that a path names.
async fn find(app: &App, owner: &Owner, id: &str) -> Result<Upload, ApiError> {
    let not_found = || ApiError::not_found(format!("No such Upload object: {}", shown(id))).at("upload_id");
    let parsed = UploadId::parse(id).ok_or_else(not_found)?;
    app.storage.upload(owner, parsed, app.clock.now()).await?.ok_or_else(not_found)
}

/// Refuses what only a pending upload allows. The status is 400 because SDKs repeat a 409 (contract §5.5).
fn check_is_pending(upload: &Upload, what: &str) -> Result<(), ApiError> {
    if upload.status == UploadStatus::Pending {
        return Ok(());
    }
    Err(ApiError::invalid(format!("{what}: the status of the upload is '{}'.", upload.status)))
}

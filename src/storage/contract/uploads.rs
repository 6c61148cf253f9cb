//! What is kept of uploads in parts.

use async_trait::async_trait;

use super::{NewFile, Result};
use crate::domain::ids::UploadId;
use crate::domain::owner::Owner;
use crate::domain::request_key::RequestKey;
use crate::domain::time::Timestamp;
use crate::domain::upload::{Upload, UploadPart};

/// Uploads and their parts. An upload is forgotten an hour after its end, see
/// [`Upkeep::retire_uploads`](super::Upkeep::retire_uploads).
#[async_trait]
pub trait UploadStore {
    /// Keeps an upload of the owner, which is pending, together with the key of its request. False, and nothing is
    /// done, if the owner has used the key before.
    async fn create_upload(&self, owner: &Owner, upload: &Upload, key: Option<&RequestKey>) -> Result<bool>;

    /// An upload of the owner, with its file if it is completed.
    async fn upload(&self, owner: &Owner, id: UploadId, now: Timestamp) -> Result<Option<Upload>>;

    /// Adds a part to an upload of the owner, together with the key of its request. False, and nothing is done, if the
    /// upload is not pending or has [`MAX_PARTS`](crate::domain::upload::MAX_PARTS) already, or if the owner has used
    /// the key before.
    async fn add_upload_part(&self, owner: &Owner, part: &UploadPart, key: Option<&RequestKey>) -> Result<bool>;

    /// The parts of an upload of the owner that is not completed.
    async fn upload_parts(&self, owner: &Owner, id: UploadId) -> Result<Vec<UploadPart>>;

    /// Makes a file of parts of an upload of the owner, in one step, and retires the blobs of its other parts. The key
    /// is that of the completion. False, and nothing is done, if the upload was completed or cancelled before, or if
    /// the owner has used the key before. One whose time has run out meanwhile is completed.
    async fn complete_upload(&self, owner: &Owner, id: UploadId, new: &NewFile, now: Timestamp) -> Result<bool>;

    /// Cancels an upload of the owner that is pending, and retires the blobs of its parts. False if there is none.
    async fn cancel_upload(&self, owner: &Owner, id: UploadId, now: Timestamp) -> Result<bool>;
}

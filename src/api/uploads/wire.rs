//! An upload as it is on the wire (contract §5.1, §5.2).

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::files::FileObject;
use crate::domain::upload::{Upload, UploadPart};

/// A file that is being sent in parts.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadObject {
    /// `upload_` and 32 hexadecimal digits.
    id: String,
    /// Always `upload`.
    object: &'static str,
    /// The size that the file must have.
    bytes: u64,
    /// Unix seconds.
    created_at: i64,
    /// The name that the file will have.
    filename: String,
    /// The purpose that the file will have.
    purpose: &'static str,
    /// `pending`, `completed`, `cancelled` or `expired`.
    status: &'static str,
    /// Unix seconds: when the upload stops taking parts.
    expires_at: i64,
    /// The file; absent until the upload is completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileObject>,
}

impl From<Upload> for UploadObject {
    fn from(upload: Upload) -> Self {
        Self {
            id: upload.id.to_string(),
            object: "upload",
            bytes: upload.bytes,
            created_at: upload.created_at.seconds(),
            filename: upload.filename,
            purpose: upload.purpose.as_str(),
            status: upload.status.as_str(),
            expires_at: upload.expires_at.seconds(),
            file: upload.file.map(FileObject::from),
        }
    }
}

/// A part of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadPartObject {
    /// `part_` and 32 hexadecimal digits.
    id: String,
    /// Always `upload.part`.
    object: &'static str,
    /// Unix seconds.
    created_at: i64,
    /// The upload that it belongs to.
    upload_id: String,
}

impl From<UploadPart> for UploadPartObject {
    fn from(part: UploadPart) -> Self {
        Self {
            id: part.id.to_string(),
            object: "upload.part",
            created_at: part.created_at.seconds(),
            upload_id: part.upload.to_string(),
        }
    }
}

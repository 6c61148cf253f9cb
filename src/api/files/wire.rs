//! A file as it is on the wire (contract §2.3).

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::file::File;
use crate::domain::time::Timestamp;

/// A file.
#[derive(Debug, Serialize, ToSchema)]
pub struct FileObject {
    /// Always `file`.
    object: &'static str,
    /// `file-` and 22 letters and digits.
    pub(super) id: String,
    /// What it is for.
    purpose: &'static str,
    /// The name it was uploaded under.
    filename: String,
    /// Its size.
    bytes: u64,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds; null if it does not expire.
    #[schema(required)]
    expires_at: Option<i64>,
    /// Always `processed`.
    status: &'static str,
    /// Always null.
    #[schema(required)]
    status_details: Option<String>,
}

impl From<File> for FileObject {
    fn from(file: File) -> Self {
        Self {
            object: "file",
            id: file.id.to_string(),
            purpose: file.purpose.as_str(),
            filename: file.filename,
            bytes: file.bytes,
            created_at: file.created_at.seconds(),
            expires_at: file.expires_at.map(Timestamp::seconds),
            status: "processed",
            status_details: None,
        }
    }
}

/// What is left of a deleted file.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedFile {
    /// Always `file`.
    pub(super) object: &'static str,
    /// Always true.
    pub(super) deleted: bool,
    /// Its id.
    pub(super) id: String,
}

//! Uploads in parts: a file that a client sends piece by piece (contract §5).

use std::time::Duration;

use super::file::{File, FilePart, Purpose};
use super::ids::{UploadId, UploadPartId};
use super::text_enum::text_enum;
use super::time::Timestamp;

/// How long an upload takes parts (contract §5.1).
pub const UPLOAD_LIFE: Duration = Duration::from_secs(3600);
/// The most bytes of all parts of an upload together (contract §10.1).
pub const MAX_UPLOAD_BYTES: u64 = 8 << 30;
/// The most bytes of one part: those of the SDKs (contract §5.6).
pub const MAX_PART_BYTES: u64 = 64 << 20;
/// The most parts of one upload. The contract has no limit; this one bounds the rows and blobs of a file.
pub const MAX_PARTS: u32 = 10_000;

text_enum! {
    /// Where an upload is in its life.
    pub enum UploadStatus {
        /// It takes parts.
        Pending = "pending",
        /// Its parts have become a file.
        Completed = "completed",
        /// Its client has given it up.
        Cancelled = "cancelled",
        /// Its time is over. Never stored: it follows from the time.
        Expired = "expired",
    }
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The name that the file will have, cleaned.
    pub filename: String,
    /// The purpose that the file will have.
    pub purpose: Purpose,
    /// The size that the file must have, in bytes.
    pub bytes: u64,
    /// When it was created; that of the file too.
    pub created_at: Timestamp,
    /// When it stops taking parts.
    pub expires_at: Timestamp,
    /// Where it is in its life.
    pub status: UploadStatus,
    /// How long the file will be kept, if the client has said so.
    pub file_expires_after: Option<Duration>,
    /// The file, if the upload is completed and the file neither deleted nor expired.
    pub file: Option<File>,
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPart {
    /// Its id.
    pub id: UploadPartId,
    /// The upload that it belongs to.
    pub upload: UploadId,
    /// Its bytes.
    pub part: FilePart,
    /// When it was added.
    pub created_at: Timestamp,
}

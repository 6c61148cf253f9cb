//! Completing an upload in parts: the parts become a file, without their bytes being copied.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use futures::TryStreamExt as _;
use md5::{Digest as _, Md5};

use super::create_file::keep_index;
use super::{CreateFileError, FileForm};
use crate::domain::file::{FilePart, Purpose};
use crate::domain::ids::UploadPartId;
use crate::domain::owner::Owner;
use crate::domain::report::IntakeLimits;
use crate::domain::row::shown;
use crate::domain::time::Timestamp;
use crate::domain::upload::{Upload, UploadStatus};
use crate::intake::inspect_stored;
use crate::storage::blobs::{BlobError, Blobs, FileBytes};
use crate::storage::{NewFile, Storage, StorageError};
use crate::telemetry::metrics;

/// What a client says of the file that an upload is to become.
#[derive(Debug, Clone)]
pub struct UploadCompletion {
    /// The ids of its parts as the client gave them, in the order of their bytes.
    pub part_ids: Vec<String>,
    /// The MD5 of all bytes as the client gave it, in hexadecimal digits of either case.
    pub md5: Option<String>,
}

/// Why an upload was not completed. It stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CompleteUploadError {
    /// It is not pending.
    #[error("The upload cannot be completed: its status is '{0}'.")]
    NotPending(UploadStatus),
    /// A part is not one of the upload's.
    #[error("The upload has no part '{}'.", shown(.0))]
    UnknownPart(String),
    /// A part is named twice.
    #[error("The part '{}' is named twice.", shown(.0))]
    RepeatedPart(String),
    /// The parts have more or fewer bytes than the upload was created for.
    #[error("The parts have {listed} bytes together, but the upload was created for {declared}.")]
    WrongTotal {
        /// What was declared when the upload was created.
        declared: u64,
        /// What the parts have.
        listed: u64,
    },
    /// The bytes have another MD5.
    #[error("The bytes have the MD5 {0}, which is not the one given. Send the part again that was damaged.")]
    WrongMd5(String),
    /// The file was not kept.
    #[error(transparent)]
    File(#[from] CreateFileError),
}

impl From<StorageError> for CompleteUploadError {
    fn from(error: StorageError) -> Self {
        Self::File(error.into())
    }
}

impl From<BlobError> for CompleteUploadError {
    fn from(error: BlobError) -> Self {
        Self::File(error.into())
    }
}

/// Completes uploads of one owner.
pub struct UploadCompleter<'a> {
    /// The uploads and the files.
    pub storage: &'a dyn Storage,
    /// The bytes of the parts.
    pub blobs: &'a Blobs,
    /// How a batch input file is read.
    pub intake: &'a IntakeLimits,
    /// The owner.
    pub owner: &'a Owner,
}

impl UploadCompleter<'_> {
    /// Makes the file of an upload. One that is completed already is returned as it is, whatever parts are named.
    ///
    /// # Errors
    /// Why it was not completed.
    pub async fn complete(
        &self,
        upload: Upload,
        completion: &UploadCompletion,
        now: Timestamp,
    ) -> Result<Upload, CompleteUploadError> {
        match upload.status {
            UploadStatus::Pending => {}
            UploadStatus::Completed => return Ok(upload),
            status => return Err(CompleteUploadError::NotPending(status)),
        }
        let new = self.file_of(&upload, completion).await?;
        let index = new.indexed.as_ref().map(|indexed| indexed.index);
        if self.storage.complete_upload(self.owner, upload.id, &new, now).await? {
            metrics::file_created(new.file.bytes);
            let (file_id, purpose, bytes) = (new.file.id, new.file.purpose, new.file.bytes);
            tracing::info!(%file_id, %purpose, bytes, parts = new.parts.len(), "file created");
            return Ok(Upload { status: UploadStatus::Completed, file: Some(new.file), ..upload });
        }
        // Another request was faster, whose file has an index of its own.
        if let Some(index) = index {
            self.blobs.delete(index).await?;
        }
        let ended = self.storage.upload(self.owner, upload.id, now).await?;
        match ended {
            Some(ended) if ended.status == UploadStatus::Completed => Ok(ended),
            other => Err(CompleteUploadError::NotPending(other.map_or(UploadStatus::Expired, |other| other.status))),
        }
    }

    /// The file that the parts make, which is checked.
    async fn file_of(&self, upload: &Upload, completion: &UploadCompletion) -> Result<NewFile, CompleteUploadError> {
        let parts = self.parts_of(upload, &completion.part_ids).await?;
        let listed = parts.iter().map(|part| part.bytes).sum();
        if listed != upload.bytes {
            return Err(CompleteUploadError::WrongTotal { declared: upload.bytes, listed });
        }
        let bytes = FileBytes::new(parts.clone());
        let mut hash = completion.md5.as_ref().map(|_| Md5::new());
        let read = bytes.stream(self.blobs, 0..bytes.len()).inspect_ok(|chunk| {
            if let Some(hash) = &mut hash {
                hash.update(chunk);
            }
        });
        let found = if upload.purpose == Purpose::Batch {
            Some(inspect_stored(Box::pin(read), self.intake).await?)
        } else {
            if completion.md5.is_some() {
                read.try_for_each(async |_| Ok(())).await?;
            }
            None
        };
        if let (Some(hash), Some(expected)) = (hash, &completion.md5) {
            let actual = hexadecimal(&hash.finalize());
            if !actual.eq_ignore_ascii_case(expected) {
                return Err(CompleteUploadError::WrongMd5(actual));
            }
        }
        let indexed = keep_index(self.blobs, upload.purpose, found).await?;
        let form = FileForm {
            purpose: upload.purpose,
            filename: upload.filename.clone(),
            expires_after: upload.file_expires_after,
        };
        Ok(NewFile { file: form.file(upload.bytes, upload.created_at), parts, indexed })
    }

    /// The parts of an upload that a client names, in its order.
    async fn parts_of(&self, upload: &Upload, ids: &[String]) -> Result<Vec<FilePart>, CompleteUploadError> {
        let parts = self.storage.upload_parts(self.owner, upload.id).await?;
        let parts: HashMap<_, _> = parts.into_iter().map(|part| (part.id, part.part)).collect();
        let mut named = HashSet::new();
        let part = |id: &String| {
            let known = UploadPartId::parse(id).and_then(|id| parts.get(&id));
            let part = *known.ok_or_else(|| CompleteUploadError::UnknownPart(id.clone()))?;
            if named.insert(id.clone()) { Ok(part) } else { Err(CompleteUploadError::RepeatedPart(id.clone())) }
        };
        ids.iter().map(part).collect()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

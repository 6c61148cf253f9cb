//! Completing an upload in parts: the parts become a file, without their bytes being copied.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt as _;
use md5::{Digest as _, Md5};

use super::create_file::{keep_index, note_created};
use super::{CreateFileError, FileForm};
use crate::domain::file::{FilePart, Purpose};
use crate::domain::ids::{BlobId, UploadPartId};
use crate::domain::owner::Owner;
use crate::domain::report::IntakeLimits;
use crate::domain::request_key::{RequestKey, hexadecimal};
use crate::domain::row::shown;
use crate::domain::time::Timestamp;
use crate::domain::upload::{Upload, UploadStatus};
use crate::intake::{Found, IntakeError, UnpackError, UploadRefusal, inspect_stored, recognised, take_in, unpacked};
use crate::storage::blobs::{BlobError, Blobs, FileBytes};
use crate::storage::{NewFile, Storage, StorageError};

/// What a client says of the file that an upload is to become.
#[derive(Debug, Clone)]
pub struct UploadCompletion {
    /// The ids of its parts as the client gave them, in the order of their bytes.
    pub part_ids: Vec<String>,
    /// The MD5 of all bytes as the client gave it, in hexadecimal digits of either case.
    pub md5: Option<String>,
    /// The key of the request.
    pub key: Option<RequestKey>,
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
    /// The bytes are packed, and cannot be unpacked for this reason.
    #[error("{0}")]
    Packed(String),
    /// Unpacked, the file is larger than a file may be.
    #[error("File is too large.")]
    TooLarge,
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

impl From<IntakeError<UnpackError<BlobError>>> for CompleteUploadError {
    fn from(error: IntakeError<UnpackError<BlobError>>) -> Self {
        match error {
            IntakeError::Stream(UnpackError::Stream(error)) | IntakeError::Blob(error) => error.into(),
            IntakeError::Stream(packed) => Self::Packed(packed.to_string()),
            IntakeError::TooLarge => Self::TooLarge,
        }
    }
}

/// The bytes of an upload, as far as they were read.
#[derive(Default)]
struct UploadContents {
    /// A new blob, if the parts are a packed batch input file.
    unpacked: Option<FilePart>,
    /// The result of reading them as a batch input file.
    found: Option<Result<Found, UploadRefusal>>,
    /// The MD5 of the bytes as they came.
    md5: Option<String>,
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
        let (new, unpacked) = match self.file_of(&upload, completion).await {
            Ok(made) => made,
            // The parts of an upload are gone once another request has completed it.
            Err(error) => {
                let ended = self.storage.upload(self.owner, upload.id, now).await?;
                return ended.filter(|ended| ended.status == UploadStatus::Completed).ok_or(error);
            }
        };
        if self.storage.complete_upload(self.owner, upload.id, &new, now).await? {
            note_created(&new);
            return Ok(Upload { status: UploadStatus::Completed, file: Some(new.file), ..upload });
        }
        // Another request was faster, whose file has blobs of its own.
        for blob in new.indexed.map(|indexed| indexed.index).into_iter().chain(unpacked) {
            self.blobs.delete(blob).await?;
        }
        let ended = self.storage.upload(self.owner, upload.id, now).await?;
        match ended {
            Some(ended) if ended.status == UploadStatus::Completed => Ok(ended),
            other => Err(CompleteUploadError::NotPending(other.map_or(UploadStatus::Expired, |other| other.status))),
        }
    }

    /// The file that the parts make, which is checked, and the blob that was made of packed parts.
    async fn file_of(
        &self,
        upload: &Upload,
        completion: &UploadCompletion,
    ) -> Result<(NewFile, Option<BlobId>), CompleteUploadError> {
        let parts = self.parts_of(upload, &completion.part_ids).await?;
        let listed = parts.iter().map(|part| part.bytes).sum();
        if listed != upload.bytes {
            return Err(CompleteUploadError::WrongTotal { declared: upload.bytes, listed });
        }
        let contents = self.read(upload, &parts, completion.md5.is_some()).await?;
        let unpacked = contents.unpacked.map(|part| part.blob);
        let new = self.checked(upload, completion, parts, contents).await;
        if let (Err(_), Some(blob)) = (&new, unpacked) {
            self.blobs.delete(blob).await?;
        }
        Ok((new?, unpacked))
    }

    /// Reads the bytes, as far as that is needed.
    async fn read(
        &self,
        upload: &Upload,
        parts: &[FilePart],
        wants_md5: bool,
    ) -> Result<UploadContents, CompleteUploadError> {
        let file = FileBytes::new(parts.to_vec());
        let mut contents = UploadContents::default();
        let mut hash = wants_md5.then(Md5::new);
        let bytes = Box::pin(file.stream(self.blobs, 0..file.len()).inspect_ok(|chunk| {
            if let Some(hash) = &mut hash {
                hash.update(chunk);
            }
        }));
        if upload.purpose == Purpose::Batch {
            let (packing, bytes) = recognised(bytes).await?;
            if packing.is_some() {
                let taken = take_in(unpacked(bytes, packing), self.blobs, self.intake, true).await?;
                (contents.unpacked, contents.found) = (Some(taken.part), taken.found);
            } else {
                contents.found = Some(inspect_stored(bytes, self.intake).await?);
            }
        } else if wants_md5 {
            bytes.try_for_each(async |_| Ok(())).await?;
        }
        contents.md5 = hash.map(|hash| hexadecimal(&hash.finalize()));
        Ok(contents)
    }

    /// The file of these parts, if nothing is wrong with its contents.
    async fn checked(
        &self,
        upload: &Upload,
        completion: &UploadCompletion,
        parts: Vec<FilePart>,
        contents: UploadContents,
    ) -> Result<NewFile, CompleteUploadError> {
        if let (Some(actual), Some(expected)) = (contents.md5, &completion.md5)
            && !actual.eq_ignore_ascii_case(expected)
        {
            return Err(CompleteUploadError::WrongMd5(actual));
        }
        let indexed = keep_index(self.blobs, upload.purpose, contents.found).await?;
        let form = FileForm {
            purpose: upload.purpose,
            filename: upload.filename.clone(),
            expires_after: upload.file_expires_after,
            key: None,
        };
        let parts = contents.unpacked.map_or(parts, |part| vec![part]);
        let bytes = parts.iter().map(|part| part.bytes).sum();
        Ok(NewFile { file: form.file(bytes, upload.created_at), parts, indexed, key: completion.key.clone() })
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

//! Keeping a file whose bytes were taken in.

use std::time::Duration;

use object_store::PutPayload;

use crate::domain::file::{BATCH_FILE_RETENTION, File, Purpose};
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::request_key::RequestKey;
use crate::domain::time::Timestamp;
use crate::intake::{Found, Taken, UploadRefusal};
use crate::storage::blobs::{BlobError, Blobs};
use crate::storage::{FileStore, Indexed, NewFile, Storage, StorageError};
use crate::telemetry::metrics;

/// What a client says of a file.
#[derive(Debug, Clone)]
pub struct FileForm {
    /// What it is for.
    pub purpose: Purpose,
    /// Its name, cleaned.
    pub filename: String,
    /// How long it is kept.
    pub expires_after: Option<Duration>,
    /// The key of the request.
    pub key: Option<RequestKey>,
}

impl FileForm {
    /// The file that it describes, with a fresh id.
    pub(super) fn file(self, bytes: u64, created_at: Timestamp) -> File {
        let kept_for = self.expires_after.or((self.purpose == Purpose::Batch).then_some(BATCH_FILE_RETENTION));
        File {
            id: FileId::new(),
            purpose: self.purpose,
            filename: self.filename,
            bytes,
            created_at,
            expires_at: kept_for.map(|kept| created_at.plus(kept)),
        }
    }
}

/// Why a file was not kept.
#[derive(Debug, thiserror::Error)]
pub enum CreateFileError {
    /// It is to be a batch input file and is not one.
    #[error(transparent)]
    Refused(#[from] UploadRefusal),
    /// The owner has used its key before.
    #[error("The Idempotency-Key was used before.")]
    KeyUsed,
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Keeps a file of an owner. If it is not kept, its bytes are removed.
///
/// # Errors
/// Why it was not kept.
pub async fn create_file(
    storage: &dyn Storage,
    blobs: &Blobs,
    owner: &Owner,
    taken: Taken,
    form: FileForm,
    now: Timestamp,
) -> Result<File, CreateFileError> {
    let new = file_of(blobs, taken, form, now).await?;
    // After a storage error the file may be there after all; what is not is swept like any orphan.
    if !FileStore::create_file(storage, owner, &new).await? {
        drop_blobs(blobs, &new).await?;
        return Err(CreateFileError::KeyUsed);
    }
    note_created(&new);
    Ok(new.file)
}

/// The file that was taken in, with its row index kept. If it is refused, its bytes are removed.
pub(super) async fn file_of(
    blobs: &Blobs,
    taken: Taken,
    mut form: FileForm,
    now: Timestamp,
) -> Result<NewFile, CreateFileError> {
    let indexed = match keep_index(blobs, form.purpose, taken.found).await {
        // After an error of the store the blob is swept like any orphan.
        Err(CreateFileError::Refused(refusal)) => {
            blobs.delete(taken.part.blob).await?;
            return Err(refusal.into());
        }
        kept => kept?,
    };
    let key = form.key.take();
    Ok(NewFile { file: form.file(taken.part.bytes, now), parts: vec![taken.part], indexed, key })
}

/// Removes the blobs of a file that was not kept.
pub(super) async fn drop_blobs(blobs: &Blobs, new: &NewFile) -> Result<(), BlobError> {
    for part in &new.parts {
        blobs.delete(part.blob).await?;
    }
    match &new.indexed {
        Some(indexed) => blobs.delete(indexed.index).await,
        None => Ok(()),
    }
}

/// Counts and logs a file that was kept.
pub(super) fn note_created(new: &NewFile) {
    let File { id, purpose, bytes, .. } = new.file;
    metrics::file_created(bytes);
    tracing::info!(file_id = %id, %purpose, bytes, parts = new.parts.len(), "file created");
}

/// Keeps the row index of a file that is to be a batch input file; `found` is what intake made of it.
pub(super) async fn keep_index(
    blobs: &Blobs,
    purpose: Purpose,
    found: Option<Result<Found, UploadRefusal>>,
) -> Result<Option<Indexed>, CreateFileError> {
    if purpose != Purpose::Batch {
        return Ok(None);
    }
    let found = found.ok_or(UploadRefusal::Empty)??;
    let index = blobs.put(found.index.into_iter().collect::<PutPayload>()).await?;
    Ok(Some(Indexed { index, report: found.report }))
}

//! Keeping a file whose bytes were taken in.

use std::time::Duration;

use object_store::PutPayload;

use crate::domain::file::{BATCH_FILE_RETENTION, File, Purpose};
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
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
    let part = taken.part;
    let kept = keep(storage, blobs, owner, taken, form, now).await;
    // After a storage error the file may be there after all; what is not is swept like any orphan.
    if let Err(CreateFileError::Refused(_)) = &kept {
        blobs.delete(part.blob).await?;
    }
    if let Ok(file) = &kept {
        metrics::file_created(file.bytes);
        tracing::info!(file_id = %file.id, purpose = %file.purpose, bytes = file.bytes, "file created");
    }
    kept
}

async fn keep(
    storage: &dyn Storage,
    blobs: &Blobs,
    owner: &Owner,
    taken: Taken,
    form: FileForm,
    now: Timestamp,
) -> Result<File, CreateFileError> {
    let indexed = keep_index(blobs, form.purpose, taken.found).await?;
    let file = form.file(taken.part.bytes, now);
    let new = NewFile { file: file.clone(), parts: vec![taken.part], indexed };
    FileStore::create_file(storage, owner, &new).await?;
    Ok(file)
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

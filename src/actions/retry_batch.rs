//! Creating a batch that runs rows of another one again: those that failed, and those that never ran.
//!
//! The rows get an input file of their own, which is taken in like an upload. So the new batch is one like any other,
//! and can be run again itself.

use std::pin::pin;

use bytes::Bytes;
use futures::TryStreamExt as _;
use roaring::RoaringBitmap;

use super::create_batch::{create_with_input, is_of};
use super::create_file::{drop_blobs, file_of};
use super::{CreateBatchError, CreateFileError, FileForm};
use crate::domain::batch::{Batch, BatchStatus, NewBatch, RetryOptions};
use crate::domain::file::Purpose;
use crate::domain::ids::{BatchId, FileId};
use crate::domain::report::IntakeLimits;
use crate::domain::response::Fields;
use crate::domain::row::with_members;
use crate::domain::time::Timestamp;
use crate::intake::{IntakeError, take_in};
use crate::storage::blobs::BlobError;
use crate::storage::result_files::{ResultFile, ResultSource};
use crate::storage::rows::RowReader;
use crate::storage::{NewFile, ReadError, StorageError};
use crate::wakeup::Wakeup;

/// Why rows of a batch are not run again.
#[derive(Debug, thiserror::Error)]
pub enum RetryBatchError {
    /// The batch has not ended.
    #[error(
        "The rows of '{id}' cannot be run again yet: its status is '{status}'. Wait until it has ended, or cancel it."
    )]
    NotEnded {
        /// The batch.
        id: BatchId,
        /// Its status.
        status: BatchStatus,
    },
    /// None of its rows is to be run again.
    #[error("No row of '{id}' is to be run again: none failed or was left.")]
    NoRows {
        /// The batch.
        id: BatchId,
    },
    /// None of its rows has one of the codes that were chosen.
    #[error("No row of '{id}' is to be run again: none failed or was left with one of these codes.")]
    NoRowsOfCodes {
        /// The batch.
        id: BatchId,
    },
    /// The rows cannot be read any more.
    #[error(
        "The input file of '{id}' was deleted or has expired. Upload its rows again, and create a batch with them."
    )]
    InputGone {
        /// The batch.
        id: BatchId,
    },
    /// Which rows failed cannot be read any more.
    #[error("The error file of '{id}', which says what failed, was deleted or has expired. Upload the rows to be run.")]
    ErrorsGone {
        /// The batch.
        id: BatchId,
    },
    /// The changes make the file too large.
    #[error("With the members of 'retry.body' the rows are larger than a file may be.")]
    TooLarge,
    /// The new input file was not kept.
    #[error(transparent)]
    File(#[from] CreateFileError),
    /// The new batch was not created.
    #[error(transparent)]
    Batch(#[from] CreateBatchError),
    /// The database or the blob store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<StorageError> for RetryBatchError {
    fn from(error: StorageError) -> Self {
        Self::Read(error.into())
    }
}

impl From<BlobError> for RetryBatchError {
    fn from(error: BlobError) -> Self {
        Self::Read(error.into())
    }
}

/// Creates batches that run rows of another one of the same owner again.
pub struct BatchRetrier<'a> {
    /// The batch whose rows are run again.
    pub source: ResultSource,
    /// The limits of the new input file.
    pub intake: &'a IntakeLimits,
    /// Tells the daemon of the new batch.
    pub wakeup: &'a Wakeup,
}

impl BatchRetrier<'_> {
    /// Creates the batch `new`, whose input are the rows of `old` that its `retry` chooses, and which need not name it.
    /// With an idempotency key that was used before, returns the batch that was created then.
    ///
    /// # Errors
    /// Why it was not created. Nothing is left then.
    pub async fn create_batch(&self, old: &Batch, new: NewBatch, now: Timestamp) -> Result<Batch, RetryBatchError> {
        if !old.status.is_terminal() {
            return Err(RetryBatchError::NotEnded { id: old.id, status: old.status });
        }
        if let Some(before) = self.made_before(&new).await? {
            return Ok(before);
        }
        let options = new.retry.as_ref().map(|retry| retry.options.clone()).unwrap_or_default();
        let input = self.input(old, &options, now).await?;
        let ResultSource { storage, blobs, owner, .. } = &self.source;
        // After a storage error the batch may be there after all; what is not is swept like any orphan.
        if let Some(batch) = create_with_input(&**storage, self.wakeup, owner, &input, new.clone(), now).await? {
            return Ok(batch);
        }
        drop_blobs(blobs, &input).await?;
        // Another request with the same key was faster.
        self.made_before(&new).await?.ok_or_else(|| CreateBatchError::KeyReused.into())
    }

    /// The batch that an earlier request with the same key has created.
    async fn made_before(&self, new: &NewBatch) -> Result<Option<Batch>, RetryBatchError> {
        let Some(key) = &new.idempotency_key else { return Ok(None) };
        let Some(before) = self.source.storage.batch_of_key(&self.source.owner, key).await? else { return Ok(None) };
        // Each such batch has an input file of its own.
        let new = NewBatch { input_file_id: before.input_file_id.clone(), ..new.clone() };
        if is_of(&before, &new) { Ok(Some(before)) } else { Err(CreateBatchError::KeyReused.into()) }
    }

    /// Makes the new input file.
    async fn input(&self, old: &Batch, options: &RetryOptions, now: Timestamp) -> Result<NewFile, RetryBatchError> {
        let ResultSource { storage, blobs, owner, .. } = &self.source;
        let rows = self.rows(old, options).await?;
        if rows.is_empty() {
            let id = old.id;
            let is_any = options.codes.is_empty();
            return Err(if is_any { RetryBatchError::NoRows { id } } else { RetryBatchError::NoRowsOfCodes { id } });
        }
        let gone = || RetryBatchError::InputGone { id: old.id };
        let id = FileId::parse(&old.input_file_id).ok_or_else(gone)?;
        let file = storage.file(owner, id, now).await?.ok_or_else(gone)?;
        let input = storage.batch_input(owner, old.id).await?.ok_or_else(gone)?;
        let members = options.body.as_deref().and_then(|body| Fields::read(body.as_bytes()).ok());
        let lines = RowReader::new(blobs.clone(), input).lines_of_file(rows).await?;
        let lines = pin!(lines.map_ok(|line| written(&line, members.as_ref())));
        let taken = take_in(lines, blobs, self.intake, true).await.map_err(|error| match error {
            IntakeError::Stream(error) | IntakeError::Blob(error) => error.into(),
            IntakeError::TooLarge => RetryBatchError::TooLarge,
        })?;
        let form =
            FileForm { purpose: Purpose::Batch, filename: filename(&file.filename), expires_after: None, key: None };
        Ok(file_of(blobs, taken, form, now).await?)
    }

    /// The rows that failed or never ran.
    async fn rows(&self, old: &Batch, options: &RetryOptions) -> Result<RoaringBitmap, RetryBatchError> {
        if old.error_file().is_none() {
            return Ok(RoaringBitmap::new());
        }
        let files = self.source.files().await?;
        if files.file(ResultFile::Errors).is_empty() {
            return Err(RetryBatchError::ErrorsGone { id: old.id });
        }
        Ok(files.failed_rows(&options.codes).await?)
    }
}

/// A row as the new input file has it: as it was, or with other members in its body.
fn written(line: &[u8], members: Option<&Fields>) -> Bytes {
    let mut line = match members {
        None => line.to_vec(),
        // A line that cannot be read any more stays as it is: intake says what is wrong with it.
        Some(members) => with_members(line, members).unwrap_or_else(|_| line.to_vec()),
    };
    line.push(b'\n');
    line.into()
}

/// The name of the new input file.
fn filename(old: &str) -> String {
    let stem = old.strip_suffix(".jsonl").unwrap_or(old);
    format!("{}-retry.jsonl", stem.strip_suffix("-retry").unwrap_or(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_input_file_is_named_after_the_old_one() {
        let cases = [
            ("a.jsonl", "a-retry.jsonl"),
            ("a-retry.jsonl", "a-retry.jsonl"),
            ("a", "a-retry.jsonl"),
            ("a.b.jsonl", "a.b-retry.jsonl"),
        ];
        for (old, expected) in cases {
            assert_eq!(filename(old), expected);
        }
    }
}

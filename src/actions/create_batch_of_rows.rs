//! Creating a batch of rows that came with its request. They become an input file like any other.

use super::FileForm;
use super::create_batch::{create_with_input, refused_at_creation};
use super::create_file::{CreateFileError, drop_blobs, file_of};
use crate::domain::batch::{Batch, BatchError, NewBatch};
use crate::domain::file::Purpose;
use crate::domain::owner::Owner;
use crate::domain::project_limits::{ExceededLimit, ProjectLimitTable, QueuedInput};
use crate::domain::report::BatchLimits;
use crate::domain::request_key::RequestKey;
use crate::domain::time::Timestamp;
use crate::intake::{Taken, UploadRefusal};
use crate::storage::blobs::{BlobError, Blobs};
use crate::storage::{Storage, StorageError};
use crate::wakeup::Wakeup;

/// Why no batch was created of rows.
#[derive(Debug, thiserror::Error)]
pub enum BatchOfRowsError {
    /// The rows are no batch input file.
    #[error(transparent)]
    Refused(UploadRefusal),
    /// Rows are wrong: the first of them, and how many there are. The line is the number of the row, counted from 1.
    #[error("{}", .0.message)]
    Rows(Box<BatchError>, usize),
    /// The project has no room for the rows.
    #[error("The rows are beyond a limit of the project.")]
    BeyondLimit(ExceededLimit),
    /// The owner has used the key before.
    #[error("The Idempotency-Key was used before.")]
    KeyUsed,
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Creates batches of rows for one owner.
pub struct BatchOfRows<'a> {
    /// The batches and files.
    pub storage: &'a dyn Storage,
    /// The bytes.
    pub blobs: &'a Blobs,
    /// Tells the daemon of the new batch.
    pub wakeup: &'a Wakeup,
    /// The limits of the batch.
    pub limits: &'a BatchLimits,
    /// What projects may use.
    pub projects: &'a ProjectLimitTable,
    /// The owner.
    pub owner: &'a Owner,
}

impl BatchOfRows<'_> {
    /// Creates the batch `new` of rows that were taken in, and tells how many they are. They are checked at once,
    /// because the answer says what is wrong with them. Their file, of the name `filename`, is kept in the same
    /// transaction, which `new` need not name.
    ///
    /// # Errors
    /// Why it was not created. Nothing is left then.
    pub async fn create(
        &self,
        taken: Taken,
        filename: &str,
        new: NewBatch,
        key: Option<RequestKey>,
        now: Timestamp,
    ) -> Result<(Batch, u64), BatchOfRowsError> {
        let blob = taken.part.blob;
        let checked = match self.check(&taken, &new) {
            Ok(input) => self.check_limits(input).await.map(|()| input.rows),
            Err(refused) => Err(refused),
        };
        let rows = match checked {
            Ok(rows) => rows,
            Err(refused) => {
                self.blobs.delete(blob).await?;
                return Err(refused);
            }
        };
        let form = FileForm { purpose: Purpose::Batch, filename: filename.to_owned(), expires_after: None, key };
        let file = file_of(self.blobs, taken, form, now).await.map_err(|error| match error {
            CreateFileError::Blob(error) => error.into(),
            CreateFileError::Storage(error) => BatchOfRowsError::Storage(error),
            CreateFileError::Refused(_) | CreateFileError::KeyUsed => unreachable!("it was checked, and is not kept"),
        })?;
        // After a storage error the batch may be there after all; what is not is swept like any orphan.
        let created = create_with_input(self.storage, self.wakeup, self.owner, &file, new, now).await?;
        if created.is_none() {
            drop_blobs(self.blobs, &file).await?;
        }
        Ok((created.ok_or(BatchOfRowsError::KeyUsed)?, rows))
    }

    /// Finds now what would fail the batch later.
    fn check(&self, taken: &Taken, new: &NewBatch) -> Result<QueuedInput, BatchOfRowsError> {
        let report = match &taken.found {
            Some(Ok(found)) => &found.report,
            Some(Err(refusal)) => return Err(BatchOfRowsError::Refused(*refusal)),
            None => return Err(BatchOfRowsError::Refused(UploadRefusal::Empty)),
        };
        let input = QueuedInput { rows: report.rows, bytes: taken.part.bytes };
        report.lanes(new.endpoint, taken.part.bytes, self.limits).map(|_| input).map_err(|errors| {
            let count = errors.len();
            let first = errors.into_iter().next().expect("an error has its reason");
            BatchOfRowsError::Rows(Box::new(first), count)
        })
    }

    async fn check_limits(&self, input: QueuedInput) -> Result<(), BatchOfRowsError> {
        let refused = refused_at_creation(self.storage, self.projects, self.owner, input).await?;
        refused.map_or(Ok(()), |exceeded| Err(BatchOfRowsError::BeyondLimit(exceeded)))
    }
}

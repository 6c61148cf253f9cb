//! Creating a batch of rows that came with its request. They become an input file like any other.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::FileForm;
use super::create_batch::{create_with_input, refused_at_creation};
use super::create_file::{CreateFileError, drop_blobs, file_of};
use crate::domain::batch::{Batch, BatchError, NewBatch};
use crate::domain::file::{FilePart, Purpose};
use crate::domain::owner::Owner;
use crate::domain::project_limits::{ExceededLimit, ProjectLimitTable, QueuedInput};
use crate::domain::report::{BatchLimits, IntakeLimits};
use crate::domain::request_key::RequestKey;
use crate::domain::row::RowError;
use crate::domain::sparse_row::RowDefaults;
use crate::domain::splitter::{Line, LineSplitter};
use crate::domain::time::Timestamp;
use crate::intake::{IntakeError, Taken, UploadRefusal, take_in};
use crate::storage::blobs::{BlobError, Blobs, FileBytes};
use crate::storage::{Storage, StorageError};
use crate::wakeup::Wakeup;

/// The name of the input file.
const FILENAME: &str = "requests.jsonl";

/// Why no batch was created of rows.
#[derive(Debug, thiserror::Error)]
pub enum BatchOfRowsError {
    /// Rows are wrong: the first of them, and how many there are. The line is the number of the row, counted from 1.
    #[error("{}", .0.message)]
    Rows(Box<BatchError>, usize),
    /// The rows are larger than a file may be.
    #[error("The requests are too large: they may have {limit} bytes together.")]
    TooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
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
    /// How the rows are read.
    pub intake: &'a IntakeLimits,
    /// The limits of the batch.
    pub limits: &'a BatchLimits,
    /// What projects may use.
    pub projects: &'a ProjectLimitTable,
    /// The owner.
    pub owner: &'a Owner,
}

impl BatchOfRows<'_> {
    /// Creates the batch `new` of the rows in `spooled`, one a line, with what `defaults` give to them. Its input file
    /// is kept in the same transaction, which `new` need not name.
    ///
    /// # Errors
    /// Why it was not created. Nothing is left then.
    pub async fn create(
        &self,
        spooled: FilePart,
        defaults: RowDefaults,
        new: NewBatch,
        key: Option<RequestKey>,
        now: Timestamp,
    ) -> Result<Batch, BatchOfRowsError> {
        let rows = rows(&FileBytes::new(vec![spooled]), self.blobs, defaults);
        let taken = take_in(Box::pin(rows), self.blobs, self.intake, true).await.map_err(|error| match error {
            IntakeError::Stream(error) | IntakeError::Blob(error) => error.into(),
            IntakeError::TooLarge => BatchOfRowsError::TooLarge { limit: self.intake.max_file_bytes },
        })?;
        let blob = taken.part.blob;
        let checked = match self.check(&taken, &new) {
            Ok(input) => self.check_limits(input).await,
            refused => refused.map(|_| ()),
        };
        if let Err(error) = checked {
            self.blobs.delete(blob).await?;
            return Err(error);
        }
        let form = FileForm { purpose: Purpose::Batch, filename: FILENAME.to_owned(), expires_after: None, key };
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
        created.ok_or(BatchOfRowsError::KeyUsed)
    }

    /// Finds now what would fail the batch later.
    fn check(&self, taken: &Taken, new: &NewBatch) -> Result<QueuedInput, BatchOfRowsError> {
        let report = match &taken.found {
            Some(Ok(found)) => &found.report,
            Some(Err(UploadRefusal::NotUtf8)) => return Err(refused("The requests are not UTF-8.", None)),
            // The first row is not JSON.
            _ => return Err(refused(&RowError::InvalidJson.to_string(), Some(1))),
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

fn refused(message: &str, line: Option<u64>) -> BatchOfRowsError {
    let error = BatchError { code: "invalid_request".to_owned(), message: message.to_owned(), param: None, line };
    BatchOfRowsError::Rows(Box::new(error), 1)
}

/// The rows of a spooled body with the members that they leave out.
fn rows(
    spooled: &FileBytes,
    blobs: &Blobs,
    defaults: RowDefaults,
) -> impl Stream<Item = Result<Bytes, BlobError>> + use<> {
    let mut splitter = Some(LineSplitter::new(usize::MAX));
    let pieces = spooled.stream(blobs, 0..spooled.len()).map_ok(Some).chain(stream::iter([Ok(None)]));
    pieces.map_ok(move |piece| completed(&mut splitter, piece, &defaults))
}

/// The rows that end in the next piece; `None` is the end.
fn completed(splitter: &mut Option<LineSplitter>, piece: Option<Bytes>, defaults: &RowDefaults) -> Bytes {
    let mut rows = Vec::new();
    let mut each = |line: Line<'_>| {
        // What follows the last line end is no row.
        if let Line::Whole { bytes, number, .. } = line
            && !bytes.is_empty()
        {
            rows.extend_from_slice(&defaults.complete(bytes, number));
            rows.push(b'\n');
        }
    };
    match (piece, splitter.as_mut()) {
        (Some(piece), Some(splitter)) => splitter.push(&piece, &mut each),
        _ => {
            if let Some(splitter) = splitter.take() {
                splitter.finish(&mut each);
            }
        }
    }
    rows.into()
}

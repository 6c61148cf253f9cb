//! Creating a batch of requests that came with the call, instead of in a file that was uploaded before.

use super::create_batch::{create_with_input, refused_at_creation};
use super::create_file::{drop_blobs, file_of};
use super::{CreateFileError, FileForm};
use crate::domain::batch::{Batch, BatchError, NewBatch, Window};
use crate::domain::endpoint::Endpoint;
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

/// Why a message batch was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateMessageBatchError {
    /// It has no request.
    #[error("It has no request.")]
    Empty,
    /// Its requests are not ones that a batch can run: the first error of all.
    #[error("{}", .0.message)]
    Invalid(Box<BatchError>),
    /// The project has no room for its requests.
    #[error("The requests are beyond a limit of the project.")]
    BeyondLimit(ExceededLimit),
    /// Its input file was not kept.
    #[error(transparent)]
    File(#[from] CreateFileError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The bytes of what was refused could not be removed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// What creates message batches of an owner.
pub struct MessageBatchCreator<'a> {
    /// Metadata.
    pub storage: &'a dyn Storage,
    /// Bytes.
    pub blobs: &'a Blobs,
    /// Tells the daemon of the new batch.
    pub wakeup: &'a Wakeup,
    /// The owner.
    pub owner: &'a Owner,
    /// What projects may use.
    pub projects: &'a ProjectLimitTable,
    /// The limits of the batch.
    pub limits: &'a BatchLimits,
}

impl MessageBatchCreator<'_> {
    /// Creates a batch of rows that were taken in, and tells how many they are. Its input is checked at once, because
    /// the answer says what is wrong with it. If the batch is not created, the rows are removed.
    ///
    /// # Errors
    /// Why it was not created.
    pub async fn create(
        &self,
        taken: Taken,
        window: Window,
        key: Option<RequestKey>,
        now: Timestamp,
    ) -> Result<(Batch, u64), CreateMessageBatchError> {
        let checked = match self.check(&taken) {
            Ok(rows) => self.check_limits(QueuedInput { rows, bytes: taken.part.bytes }).await,
            refused => refused,
        };
        let rows = match checked {
            Ok(rows) => rows,
            Err(refused) => {
                self.blobs.delete(taken.part.blob).await?;
                return Err(refused);
            }
        };
        let filename = "message-batch.jsonl".to_owned();
        let form = FileForm { purpose: Purpose::Batch, filename, expires_after: None, key };
        let input = file_of(self.blobs, taken, form, now).await?;
        let new = NewBatch {
            input_file_id: String::new(),
            endpoint: Endpoint::Messages.into(),
            window,
            metadata: None,
            output_expires_after: None,
            idempotency_key: None,
            canary: None,
            retry: None,
            webhook: None,
            is_message_batch: true,
        };
        let created = create_with_input(self.storage, self.wakeup, self.owner, &input, new, now).await?;
        if created.is_none() {
            drop_blobs(self.blobs, &input).await?;
        }
        Ok((created.ok_or(CreateFileError::KeyUsed)?, rows))
    }

    /// The number of rows, if a batch can run them.
    fn check(&self, taken: &Taken) -> Result<u64, CreateMessageBatchError> {
        let report = match &taken.found {
            None | Some(Err(UploadRefusal::Empty)) => return Err(CreateMessageBatchError::Empty),
            Some(Err(refusal)) => return Err(CreateFileError::Refused(*refusal).into()),
            Some(Ok(found)) => &found.report,
        };
        match report.lanes(Endpoint::Messages.into(), taken.part.bytes, self.limits) {
            Ok(_) => Ok(report.rows),
            Err(mut errors) => Err(CreateMessageBatchError::Invalid(Box::new(errors.swap_remove(0)))),
        }
    }

    /// The number of rows, if the project has room for them.
    async fn check_limits(&self, input: QueuedInput) -> Result<u64, CreateMessageBatchError> {
        let refused = refused_at_creation(self.storage, self.projects, self.owner, input).await?;
        refused.map_or(Ok(input.rows), |exceeded| Err(CreateMessageBatchError::BeyondLimit(exceeded)))
    }
}

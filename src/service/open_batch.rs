//! Creating a batch, in time that does not depend on its rows.

use crate::domain::batch::{Batch, NewBatch};
use crate::domain::file::Purpose;
use crate::domain::ids::FileId;
use crate::domain::time::Timestamp;
use crate::storage::{Storage, StorageError};
use crate::telemetry::metrics;
use crate::wakeup::Wakeup;

/// Why a batch was not created.
#[derive(Debug, thiserror::Error)]
pub enum OpenBatchError {
    /// The input file was uploaded for something else.
    #[error("Invalid file purpose: '{0}'. The input file of a batch must have purpose 'batch'.")]
    WrongPurpose(Purpose),
    /// The idempotency key was used for a batch with other parameters.
    #[error(
        "The Idempotency-Key was used before, for a batch with other parameters. Use a fresh key for another batch."
    )]
    KeyReused,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Creates a batch and wakes the daemon. A file that is not there is found out by validation (contract §8.1).
///
/// # Errors
/// Why it was not created.
pub async fn open_batch(
    storage: &dyn Storage,
    wakeup: &Wakeup,
    new: &NewBatch,
    now: Timestamp,
) -> Result<Batch, OpenBatchError> {
    if let Some(id) = FileId::parse(&new.input_file_id)
        && let Some(file) = storage.file(id, now).await?
        && file.purpose != Purpose::Batch
    {
        return Err(OpenBatchError::WrongPurpose(file.purpose));
    }
    let batch = storage.create_batch(new, now).await?;
    let is_same = batch.input_file_id == new.input_file_id
        && batch.endpoint == new.endpoint
        && batch.completion_window == new.window.text
        && batch.metadata == new.metadata
        && batch.output_expires_after == new.output_expires_after;
    if !is_same {
        return Err(OpenBatchError::KeyReused);
    }
    metrics::batch_created();
    tracing::info!(batch_id = %batch.id, endpoint = %batch.endpoint, input_file_id = %batch.input_file_id, "batch created");
    wakeup.wake();
    Ok(batch)
}

//! Creating a batch, in time that does not depend on its rows.

use std::collections::BTreeMap;

use super::create_file::note_created;
use crate::domain::batch::{Batch, NewBatch};
use crate::domain::file::Purpose;
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::project_limits::{ExceededLimit, ProjectLimitTable, QueuedInput};
use crate::domain::time::Timestamp;
use crate::storage::{BatchStore, NewFile, Storage, StorageError, queue};
use crate::telemetry::metrics;
use crate::wakeup::Wakeup;

/// Why a batch was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateBatchError {
    /// The input file was uploaded for something else.
    #[error("Invalid file purpose: '{0}'. The input file of a batch must have purpose 'batch'.")]
    WrongPurpose(Purpose),
    /// The idempotency key was used for a batch with other parameters, or for something else.
    #[error("The Idempotency-Key was used before, for another request. Use a fresh key for this one.")]
    KeyReused,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Creates a batch of an owner and wakes the daemon. Validation finds out whether the
/// owner has the input file (contract §8.1).
///
/// # Errors
/// Why it was not created.
pub async fn create_batch(
    storage: &dyn Storage,
    wakeup: &Wakeup,
    owner: &Owner,
    new: &NewBatch,
    now: Timestamp,
) -> Result<Batch, CreateBatchError> {
    if let Some(id) = FileId::parse(&new.input_file_id)
        && let Some(file) = storage.file(owner, id, now).await?
        && file.purpose != Purpose::Batch
    {
        return Err(CreateBatchError::WrongPurpose(file.purpose));
    }
    let batch = storage.create_batch(owner, new, now).await?;
    let batch = batch.filter(|batch| is_of(batch, new)).ok_or(CreateBatchError::KeyReused)?;
    note_batch(&batch);
    wakeup.wake();
    Ok(batch)
}

/// Creates a batch together with its input file in one transaction and wakes the daemon. `new` need not name the file.
/// `None`, and nothing is kept, if the owner has used the key of the file or of the batch before.
pub(super) async fn create_with_input(
    storage: &dyn Storage,
    wakeup: &Wakeup,
    owner: &Owner,
    input: &NewFile,
    new: NewBatch,
    now: Timestamp,
) -> Result<Option<Batch>, StorageError> {
    let new = NewBatch { input_file_id: input.file.id.to_string(), ..new };
    let created = BatchStore::create_batch_with(storage, owner, input, &new, now).await?;
    if let Some(batch) = &created {
        note_created(input);
        note_batch(batch);
        wakeup.wake();
    }
    Ok(created)
}

/// The limit that refuses rows which come with the creation of their batch. A batch that waits for room is refused only
/// if there will never be enough.
pub(super) async fn refused_at_creation(
    storage: &dyn Storage,
    projects: &ProjectLimitTable,
    owner: &Owner,
    input: QueuedInput,
) -> Result<Option<ExceededLimit>, StorageError> {
    let limits = projects.of(owner);
    if limits.waits() {
        return Ok(limits.exceeded(QueuedInput::default(), input));
    }
    queue::exceeded(storage, owner, &limits, input).await
}

/// Counts and logs a batch that was created.
fn note_batch(batch: &Batch) {
    metrics::batch_created();
    let Batch { id, endpoint, input_file_id, .. } = batch;
    tracing::info!(batch_id = %id, %endpoint, %input_file_id, "batch created");
}

/// Whether a batch, which may be that of an earlier request with the same key, has these parameters.
pub(super) fn is_of(batch: &Batch, new: &NewBatch) -> bool {
    // Names every field, so that none is forgotten.
    // The canary follows from the metadata. The key of a message batch is that of its input file.
    let NewBatch {
        input_file_id,
        endpoint,
        window,
        metadata,
        output_expires_after,
        idempotency_key: _,
        canary: _,
        retry,
        webhook,
        is_message_batch: _,
    } = new;
    batch.input_file_id == *input_file_id
        && batch.endpoint == *endpoint
        && batch.completion_window == window.text
        && is_same_metadata(batch.metadata.as_deref(), metadata.as_deref())
        && batch.output_expires_after == *output_expires_after
        && batch.retry == *retry
        // The secret is not kept beyond the end of the batch.
        && batch.webhook_url.as_deref() == webhook.as_ref().map(|webhook| webhook.url.as_str())
}

/// Whether two batches have the same metadata. The order of its pairs makes no difference.
fn is_same_metadata(one: Option<&str>, other: Option<&str>) -> bool {
    let pairs = |json: &str| serde_json::from_str::<BTreeMap<String, String>>(json).ok();
    match (one, other) {
        (Some(one), Some(other)) => one == other || pairs(one).is_some_and(|one| Some(one) == pairs(other)),
        (one, other) => one == other,
    }
}

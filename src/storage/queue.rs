//! The input that a project has in line, compared with its limits.

use super::{Result, Storage};
use crate::domain::batch::Batch;
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::project_limits::{COUNTED_BATCHES, ExceededLimit, ProjectLimits, QueuedInput, WaitingQueue};

/// The rows without a result of an owner's batches in progress. Their bytes are counted only if tokens are limited.
pub async fn queued<S: Storage + ?Sized>(storage: &S, owner: &Owner, limits: &ProjectLimits) -> Result<QueuedInput> {
    if limits.queued_tokens.is_some() {
        return storage.queued_input(owner, COUNTED_BATCHES).await;
    }
    let rows = storage.rows_in_progress(owner, COUNTED_BATCHES).await?.counts.owed();
    Ok(QueuedInput { rows, bytes: 0 })
}

/// The limit of an owner that leaves no room for more input.
pub async fn exceeded<S: Storage + ?Sized>(
    storage: &S,
    owner: &Owner,
    limits: &ProjectLimits,
    new: QueuedInput,
) -> Result<Option<ExceededLimit>> {
    if !limits.limits_queue() {
        return Ok(None);
    }
    Ok(limits.exceeded(queued(storage, owner, limits).await?, new))
}

/// The queue of an owner whose batches wait until there is room; `None` if the one that is next has room.
pub async fn waiting<S: Storage + ?Sized>(
    storage: &S,
    owner: &Owner,
    limits: &ProjectLimits,
) -> Result<Option<WaitingQueue>> {
    if !limits.waits() {
        return Ok(None);
    }
    let Some(first) = storage.first_to_admit(owner).await? else { return Ok(None) };
    let Some(input) = input_of(storage, &first).await? else { return Ok(None) };
    let exceeded = exceeded(storage, owner, limits, input).await?.filter(|exceeded| !exceeded.is_for_good());
    Ok(exceeded.map(|exceeded| WaitingQueue { first: first.id, exceeded }))
}

/// The input of a batch that was not admitted, if its file is there.
async fn input_of<S: Storage + ?Sized>(storage: &S, batch: &Batch) -> Result<Option<QueuedInput>> {
    let Some(id) = FileId::parse(&batch.input_file_id) else { return Ok(None) };
    let Some(file) = storage.input_file(&batch.owner, id, batch.created_at).await? else { return Ok(None) };
    let Some(report) = storage.file_report(&batch.owner, id).await? else { return Ok(None) };
    Ok(Some(QueuedInput { rows: report.rows, bytes: file.bytes }))
}

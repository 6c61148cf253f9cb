//! Where one request of a batch stands, and its result.

use bytes::Bytes;

use crate::domain::batch::{Batch, BatchStatus};
use crate::domain::ids::RequestId;
use crate::domain::owner::Owner;
use crate::domain::result::RequestStatus;
use crate::domain::time::Timestamp;
use crate::storage::blobs::Blobs;
use crate::storage::results::result_line;
use crate::storage::rows::RowReader;
use crate::storage::{ReadError, Storage};

/// Where a request in a batch of an owner stands, and its result line if it has one. `None` if it had one, in a file
/// that is gone.
///
/// # Errors
/// It could not be found out.
pub async fn request_state(
    storage: &dyn Storage,
    blobs: &Blobs,
    owner: &Owner,
    batch: &Batch,
    reader: &RowReader,
    row: u32,
    now: Timestamp,
) -> Result<Option<(RequestStatus, Option<Bytes>)>, ReadError> {
    // Before the ledger is read: a row that is recorded meanwhile, and so held no more, is then found there.
    let position = if batch.status.is_terminal() { None } else { reader.position(row).await? };
    let is_held = match position {
        Some(position) => storage.is_held(owner, batch.id, position).await?,
        None => false,
    };
    if let Some(line) = result_line(storage, blobs, owner, RequestId { batch: batch.id, row }, now).await? {
        let state = if line.succeeded { RequestStatus::Completed } else { RequestStatus::of_error_line(&line.text) };
        return Ok(Some((state, Some(line.text))));
    }
    let state = match batch.status {
        _ if is_held => RequestStatus::InProgress,
        status if !status.is_terminal() => RequestStatus::Pending,
        BatchStatus::Failed => RequestStatus::Failed,
        // Called off before it was admitted, and with a bad input, so that no row has a line.
        BatchStatus::Cancelled if batch.counts.total == 0 => RequestStatus::Cancelled,
        _ => return Ok(None),
    };
    Ok(Some((state, None)))
}

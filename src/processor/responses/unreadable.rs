//! Rows that need something of this program's own storage which cannot be read.

use crate::domain::outcome::FailureReason;
use crate::storage::ReadError;
use crate::storage::blobs::Blobs;
use crate::telemetry::chain;

/// Why a row fails that needs `what`. A database or a blob store that is away will be back, and the row waits for it;
/// lost or damaged data stays so.
pub(super) async fn unreadable(what: &str, error: &ReadError, blobs: &Blobs) -> FailureReason {
    let message = format!("{what} cannot be read: {}.", chain(error));
    if error.is_outage(blobs).await {
        FailureReason::StorageUnavailable(message)
    } else {
        FailureReason::StorageFault(message)
    }
}

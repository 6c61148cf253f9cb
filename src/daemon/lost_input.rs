//! Batches whose input cannot be read any more: when they are given up, so that they end.

use std::error::Error;
use std::time::Duration;

use super::items::Cause;
use super::shared::DaemonCore;
use crate::domain::time::Timestamp;
use crate::storage::StorageError;

/// A blob that is not there will not come back: blobs are written once, under fresh ids, to stores that show what was
/// written at once. Looking again for a moment outlasts a file system that is mounted anew or a store that fails over.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(5);
/// Any other failure may pass, such as rights that somebody sets right. Nobody waits for the rows of a batch whose
/// window has closed for so long; they wait for its end.
const GIVEN_UP_AFTER_WINDOW: Duration = Duration::from_secs(3600);
/// A daemon that starts long after the window has closed does not give up at its first failure either.
const FAILING_LONG: Duration = Duration::from_secs(600);

/// Whether an input that could not be read, for this reason and for so long, is lost for good.
pub(super) async fn is_lost<S>(
    shared: &DaemonCore<S>,
    error: &(dyn Error + Send + Sync + 'static),
    failing_for: Duration,
    expires_at: Timestamp,
) -> bool {
    let is_gone = match Cause::of(error) {
        Cause::Storage(error) if error.is_outage() => return false,
        Cause::Storage(error) => matches!(error, StorageError::Corrupt { .. }),
        Cause::Blob(error) => error.is_gone(),
        // Bytes that are there and are no rows, or a file that is in the database no more: neither changes.
        Cause::Other => true,
    };
    if is_gone && failing_for >= GONE_AFTER {
        // In a store without its mark everything is gone: it is the store that is not there, and it may come back.
        return shared.blobs.check().await.is_ok();
    }
    failing_for >= FAILING_LONG && shared.clock.now() >= expires_at.plus(GIVEN_UP_AFTER_WINDOW)
}

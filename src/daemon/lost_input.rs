//! When a batch whose input cannot be read is given up, so that it ends.

use std::error::Error;
use std::time::Duration;

use super::core::DaemonCore;
use super::items::Cause;
use crate::domain::time::Timestamp;
use crate::storage::StorageError;

/// A blob that is missing for so long is gone. Blobs are written once, under fresh ids, to stores that show them at
/// once, so none comes back; the time outlasts a file system that is mounted anew or a store that fails over.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(5);
/// Any other failure may pass, as when an operator mends access rights. A batch that cannot be read is given up when
/// its window has closed for so long: its client waits for the batch to end rather than for its rows.
const GIVEN_UP_AFTER_WINDOW: Duration = Duration::from_secs(3600);
/// A failure other than a missing blob must have lasted for so long, so that a daemon which starts long after the
/// window has closed does not give up at its first attempt.
const FAILING_LONG: Duration = Duration::from_secs(600);

/// Whether an input that could not be read, with this error and for so long, is lost for good.
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
        // The bytes are no rows, or the database has the file no more: neither changes.
        Cause::Other => true,
    };
    if is_gone && failing_for >= GONE_AFTER {
        // A store without its mark is not there at all, such as a disk that is not mounted, and may come back.
        return shared.blobs.check().await.is_ok();
    }
    failing_for >= FAILING_LONG && shared.clock.now() >= expires_at.plus(GIVEN_UP_AFTER_WINDOW)
}

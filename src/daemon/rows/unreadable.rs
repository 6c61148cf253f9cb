//! Leases whose rows cannot be read.

use std::error::Error;
use std::time::Duration;

use super::queue::Cancellation;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::{Items, Surroundings};
use crate::daemon::lost_input::is_lost;
use crate::daemon::timer::DutyError;
use crate::domain::batch::BatchStatus;
use crate::domain::ids::BatchId;
use crate::domain::lease::Lease;
use crate::storage::Storage;
use crate::telemetry::chain;

/// Longest pause before a batch's rows are read again. The daemon holds the lease meanwhile; the pause is short because
/// the fault may be this daemon's alone, and then another can run the rows.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the daemon holds a lease whose rows cannot be read because the database or the blob store is away.
const PAUSE_IN_OUTAGE: Duration = Duration::from_secs(1);

/// The batches whose rows cannot be read.
pub(in crate::daemon) fn items(around: &Surroundings) -> Items<BatchId> {
    Items::new("run", LONGEST_PAUSE, around)
}

/// Notes that the rows of a lease cannot be read, and gives its batch up if they are lost. Returns after the pause,
/// when the lease is to be given back.
pub(super) async fn lease_failed<S: Storage>(
    shared: &DaemonCore<S>,
    unreadable: &Items<BatchId>,
    lease: &Lease,
    error: DutyError,
    cancellation: &Cancellation,
) {
    let batch = lease.batch_id;
    let failing_for = unreadable.failing_for(batch);
    let is_lost = is_lost_while_running(shared, lease, &*error, failing_for).await;
    let pause = match unreadable.failed(batch, error).await {
        Ok(retry) => retry.after,
        Err(outage) => {
            tracing::error!(lease_id = %lease.id, error = chain(&*outage), "the rows of a lease cannot be read");
            PAUSE_IN_OUTAGE
        }
    };
    if is_lost {
        match shared.storage.give_up_batch(batch, shared.clock.now()).await {
            Ok(true) => {
                tracing::error!(batch_id = %batch, "a batch is given up: its input cannot be read any more");
                shared.wakeup.wake();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(batch_id = %batch, error = chain(&error), "a batch could not be given up"),
        }
    }
    tokio::select! {
        () = cancellation.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// Whether the input is lost of a batch that is in progress: any other batch is about to end, or has ended.
async fn is_lost_while_running<S: Storage>(
    shared: &DaemonCore<S>,
    lease: &Lease,
    error: &(dyn Error + Send + Sync + 'static),
    failing_for: Duration,
) -> bool {
    match shared.storage.any_batch(lease.batch_id).await {
        Ok(Some(batch)) if batch.status == BatchStatus::InProgress => {
            is_lost(shared, error, failing_for, batch.expires_at).await
        }
        _ => false,
    }
}

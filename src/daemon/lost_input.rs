//! Batches whose input cannot be read any more: when they are given up, so that they end.

use std::error::Error;
use std::time::Duration;

use super::context::Context;
use super::duty::Failure;
use super::items::Cause;
use super::queue::Halts;
use crate::domain::batch::BatchStatus;
use crate::domain::lease::Lease;
use crate::domain::time::Timestamp;
use crate::storage::{Storage, StorageError};
use crate::telemetry::chain;

/// A blob that is not there will not come back: blobs are written once, under fresh ids, to stores that show what was
/// written at once. Looking again for a moment outlasts a file system that is mounted anew or a store that fails over.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(5);
/// Any other failure may pass, such as rights that somebody sets right. Nobody waits for the rows of a batch whose
/// window has closed for so long; they wait for its end.
const GIVEN_UP_AFTER_WINDOW: Duration = Duration::from_secs(3600);
/// A daemon that starts long after the window has closed does not give up at its first failure either.
const FAILING_LONG: Duration = Duration::from_secs(600);

/// The longest pause of the leases of a batch that cannot be read. They are held meanwhile, so it is short: the fault may
/// be this daemon's alone, and then others can run them.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a lease is kept whose rows could not be found out because the database or the blob store is away.
const PAUSE_IN_OUTAGE: Duration = Duration::from_secs(1);

/// Whether an input that could not be read, for this reason and for so long, is lost for good.
pub(super) async fn is_lost<S, H, P>(
    context: &Context<S, H, P>,
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
        return context.blobs.check().await.is_ok();
    }
    failing_for >= FAILING_LONG && context.clock.now() >= expires_at.plus(GIVEN_UP_AFTER_WINDOW)
}

/// Notes that the rows of a lease cannot be read, gives its batch up if they are lost, and returns when the lease is to
/// be given back.
pub(super) async fn lease_failed<S: Storage, H, P>(
    context: &Context<S, H, P>,
    lease: &Lease,
    error: Failure,
    halts: &Halts,
) {
    let batch = lease.batch_id;
    let failing_for = context.unreadable.failing_for(batch);
    let lost = is_gone_while_running(context, lease, &*error, failing_for).await;
    let pause = match context.unreadable.failed(batch, error).await {
        Ok(retry) => retry.after,
        Err(outage) => {
            tracing::error!(lease_id = %lease.id, error = chain(&*outage), "the rows of a lease cannot be read");
            PAUSE_IN_OUTAGE
        }
    };
    if lost {
        match context.storage.give_up_batch(batch, context.clock.now()).await {
            Ok(true) => {
                tracing::error!(batch_id = %batch, "a batch is given up: its input cannot be read any more");
                context.wakeup.wake();
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(batch_id = %batch, error = chain(&error), "a batch could not be given up"),
        }
    }
    tokio::select! {
        () = halts.until_no_more() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

async fn is_gone_while_running<S: Storage, H, P>(
    context: &Context<S, H, P>,
    lease: &Lease,
    error: &(dyn Error + Send + Sync + 'static),
    failing_for: Duration,
) -> bool {
    match context.storage.batch(lease.batch_id).await {
        Ok(Some(batch)) if batch.status == BatchStatus::InProgress => {
            is_lost(context, error, failing_for, batch.expires_at).await
        }
        _ => false,
    }
}

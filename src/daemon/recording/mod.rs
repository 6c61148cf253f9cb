//! Making durable what the daemon has done: outcomes of rows, and the steps of rows that take several calls.
//!
//! Both gather in a [`GroupCommit`](crate::storage::group_commit::GroupCommit) and are committed by one task each. If such a
//! task panics, the daemon stops and `/readyz` says that its loops do not turn: rows whose outcomes nobody records must not
//! be run, and no row is failed for it.

mod outbox;
mod recorder;

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use super::shared::Shutdown;

pub(super) use outbox::Outbox;
pub(super) use recorder::Recorder;

/// Runs a task that commits. If it panics, `abandon` tells those who wait for it, and the daemon stops.
pub(super) async fn guard(
    name: &'static str,
    committing: impl Future<Output = ()>,
    abandon: impl FnOnce(),
    shutdown: Shutdown,
) {
    if AssertUnwindSafe(committing).catch_unwind().await.is_err() {
        tracing::error!(task = name, "a task that makes results durable panicked; the daemon stops");
        abandon();
        shutdown.stopping.cancel();
        shutdown.abort.cancel();
    }
}

//! Recording: outcomes of rows become durable, and the steps of rows that take several calls.
//!
//! Both gather in a [`GroupCommit`](crate::storage::group_commit::GroupCommit), from which one task each commits them.
//! If such a task panics, the daemon stops and `/readyz` reports that its loops do not turn. Rows whose outcomes cannot
//! be recorded must not run, and no row fails for it.

mod courses;
mod outbox;
mod recorder;

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;

use super::core::Shutdown;

pub(super) use courses::ModelCourses;
pub(super) use outbox::{Outbox, RowOutcome};
pub(super) use recorder::Recorder;

/// Runs a task that commits. If it panics, `abandon` releases the tasks that wait for a commit, and the daemon stops.
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_stops_the_daemon_and_lets_nobody_wait_for_what_is_lost() {
        let (outbox, shutdown) = (Outbox::new(), Shutdown::default());
        let mut waiting = Box::pin(outbox.flush());
        assert!(waiting.as_mut().now_or_never().is_none(), "nothing is recorded");

        guard("test", async { panic!("a fault made for a test") }, || outbox.abandon(), shutdown.clone()).await;

        assert!(waiting.now_or_never().is_some());
        assert!(shutdown.stopping.is_cancelled() && shutdown.abort.is_cancelled());
    }

    #[tokio::test]
    async fn an_end_in_order_stops_nothing() {
        let shutdown = Shutdown::default();

        guard("test", async {}, || panic!("nothing is lost"), shutdown.clone()).await;

        assert!(!shutdown.stopping.is_cancelled());
    }
}

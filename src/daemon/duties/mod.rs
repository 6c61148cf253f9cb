//! What a daemon does beside running rows: each duty is a value with a name, an interval and a tick.
//!
//! | duty | what it does | at least every |
//! |---|---|---|
//! | admit | validates new batches and opens their lanes | 1 s |
//! | expire | closes windows | 1 s |
//! | finalize | ends batches whose leases are all given back | 1 s |
//! | compact | merges small parts of result files | 1 s |
//! | purge | deletes files and uploads that have expired, blobs that no file has any more, and old steps and attempts | 30 s |
//! | orphans | deletes blobs that nothing refers to | `sweep_every`, one of 256 directories |
//! | deliver | posts the events of batches that have ended to webhooks | 1 s |
//! | backlog | measures how many rows wait for each model | 5 s |

mod admit;
mod backlog;
mod compact;
mod deliver;
mod expire;
mod finalize;
mod orphans;
mod owed;
mod purge;
mod validation;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

use super::core::DaemonCore;
use super::items::{Items, Surroundings};
use super::timer::{TickResult, Timer};
use crate::storage::Storage;
use crate::telemetry::Liveness;
use crate::wakeup::Wakeup;
use crate::webhooks::Webhooks;

pub(super) use compact::FlushCounts;

/// Longest pause before an item that fails is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Periodic work of the daemon.
#[async_trait]
pub(super) trait Duty: Send + Sync {
    /// Its name in logs, metrics and `/readyz`.
    fn name(&self) -> &'static str;

    /// The longest time between two ticks.
    fn every(&self) -> Duration;

    /// Whether it also ticks when something has happened to a batch.
    fn is_woken(&self) -> bool {
        true
    }

    /// Does the work that is due.
    async fn tick(&self) -> TickResult;
}

/// Runs a duty until the daemon stops.
pub(super) async fn run<S: Storage>(duty: Box<dyn Duty>, shared: Arc<DaemonCore<S>>, liveness: Liveness) {
    let wakeup = if duty.is_woken() { shared.wakeup.clone() } else { Wakeup::new() };
    let timer = Timer::new(duty.name(), duty.every(), &wakeup, &shared.shutdown.stopping, &liveness);
    timer.run(|| duty.tick()).await;
}

/// The duties of a daemon.
pub(super) fn all<S: Storage>(
    shared: &Arc<DaemonCore<S>>,
    flush_counts: Arc<FlushCounts>,
    webhooks: Webhooks,
    tasks: &TaskTracker,
    around: &Surroundings,
) -> [Box<dyn Duty>; 8] {
    let shared = || shared.clone();
    [
        Box::new(admit::Admit {
            shared: shared(),
            items: Items::new("admit", LONGEST_PAUSE, around),
            waiting: waiting::WaitingBatches::default(),
        }),
        Box::new(expire::Expire { shared: shared() }),
        Box::new(finalize::Finalize { shared: shared(), items: Items::new("finalize", LONGEST_PAUSE, around) }),
        Box::new(compact::Compact {
            shared: shared(),
            flush_counts,
            items: Items::new("compact", LONGEST_PAUSE, around),
        }),
        Box::new(purge::Purge { shared: shared(), items: Items::new("purge", LONGEST_PAUSE, around) }),
        Box::new(orphans::Orphans::new(shared(), Items::new("orphans", LONGEST_PAUSE, around))),
        Box::new(deliver::Deliver::new(
            shared(),
            Items::new("deliver", LONGEST_PAUSE, around),
            webhooks,
            tasks.clone(),
        )),
        Box::new(backlog::MeasureBacklog { shared: shared(), labels: backlog::ModelLabels::default() }),
    ]
}

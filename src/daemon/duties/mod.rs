//! What a daemon does beside running rows: each duty is a value with a name, an interval and a tick.
//!
//! | duty | what it does | at least every |
//! |---|---|---|
//! | admit | validates new batches and opens their lanes | 1 s |
//! | expire | closes windows | 1 s |
//! | finalize | ends batches whose leases are all given back | 1 s |
//! | compact | merges small parts of result files | 1 s |
//! | purge | deletes what nobody can see any more | 30 s |
//! | orphans | deletes blobs that nothing refers to | `sweep_every`, one of 256 directories |

mod admit;
mod compact;
mod expire;
mod finalize;
mod orphans;
mod owed;
mod purge;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::items::{Items, Surroundings};
use super::shared::DaemonCore;
use super::timer::TickResult;
use crate::storage::Storage;

pub(super) use compact::FlushCounts;

/// How long an item that fails again and again waits at most to be tried once more.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Work that is done from time to time.
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

    /// Does what there is to do.
    async fn tick(&self) -> TickResult;
}

/// The duties of a daemon.
pub(super) fn all<S: Storage>(
    shared: &Arc<DaemonCore<S>>,
    flush_counts: Arc<FlushCounts>,
    around: &Surroundings,
) -> [Box<dyn Duty>; 6] {
    let shared = || shared.clone();
    [
        Box::new(admit::Admit { shared: shared(), items: Items::new("admit", LONGEST_PAUSE, around) }),
        Box::new(expire::Expire { shared: shared() }),
        Box::new(finalize::Finalize { shared: shared(), items: Items::new("finalize", LONGEST_PAUSE, around) }),
        Box::new(compact::Compact {
            shared: shared(),
            flush_counts,
            items: Items::new("compact", LONGEST_PAUSE, around),
        }),
        Box::new(purge::Purge { shared: shared(), items: Items::new("purge", LONGEST_PAUSE, around) }),
        Box::new(orphans::Orphans::new(shared(), Items::new("orphans", LONGEST_PAUSE, around))),
    ]
}

//! Closing windows: a batch that is still in progress at its deadline is finalized with what it has.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::timer::TickResult;
use crate::storage::Storage;

const EVERY: Duration = Duration::from_secs(1);
const BATCHES: u32 = 100;

/// Moves the batches whose window has closed to `finalizing`.
pub(super) struct Expire<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
}

#[async_trait]
impl<S: Storage> Duty for Expire<S> {
    fn name(&self) -> &'static str {
        "expire"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    async fn tick(&self) -> TickResult {
        let DaemonCore { storage, clock, wakeup, .. } = &*self.shared;
        let expired = storage.expire_batches(clock.now(), BATCHES).await?;
        if expired > 0 {
            tracing::info!(expired, "completion windows closed");
            wakeup.wake();
        }
        Ok(())
    }
}

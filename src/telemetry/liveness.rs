//! Whether the daemon's loops turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::metrics;

/// A loop counts as stuck when it has not turned for this long.
const STUCK_AFTER: Duration = Duration::from_secs(90);

/// When each loop of a daemon last turned. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Liveness(Arc<Mutex<BTreeMap<&'static str, Instant>>>);

impl Liveness {
    /// The loops that have not turned for a minute and a half.
    #[must_use]
    pub fn stuck(&self) -> Vec<&'static str> {
        let turned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turned.iter().filter(|(_, at)| at.elapsed() > STUCK_AFTER).map(|(name, _)| *name).collect()
    }

    /// Notes that a loop turned.
    pub fn turned(&self, name: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
        metrics::loop_turned(name);
    }
}

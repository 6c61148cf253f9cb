//! This daemon's share of the calls that all daemons together may have under way.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;
use crate::upstream::Registry;

/// The limiter grows to a larger share after it was this daemon's for so long: by then the other daemons have shrunk.
const SETTLED: Duration = Duration::from_millis(2500);

/// Sets the limit of all calls to this daemon's share, at each heartbeat.
pub(in crate::daemon) struct FairShare {
    most: usize,
    growing_since: Mutex<Option<Instant>>,
}

impl FairShare {
    /// A share that the limiter follows up to `most`.
    pub(in crate::daemon) fn new(most: usize) -> Self {
        Self { most, growing_since: Mutex::default() }
    }

    /// Sets the limit to a share: at once if it is smaller, once it has settled if it is larger.
    pub(in crate::daemon) fn follow(&self, registry: &Registry, share: usize, at: Instant) {
        let share = share.min(self.most);
        let mut growing_since = lock(&self.growing_since);
        let mut is_settled = || at.duration_since(*growing_since.get_or_insert(at)) >= SETTLED;
        if share <= registry.limit() || is_settled() {
            *growing_since = None;
            registry.set_limit(share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Clock;
    use crate::upstream::{NoUpstream, Server, ServerSettings};

    #[test]
    fn a_share_shrinks_at_once_and_grows_when_it_has_settled() {
        let server = Server::embedded(NoUpstream, ServerSettings::default(), Clock::System);
        let (share, registry) = (FairShare::new(10), Registry::of(server));
        let start = Instant::now();

        let follow = |of, at| {
            share.follow(&registry, of, at);
            registry.limit()
        };
        assert_eq!(follow(4, start), 0);
        assert_eq!(follow(4, start + SETTLED / 2), 0);
        assert_eq!(follow(4, start + SETTLED), 4);
        assert_eq!(follow(6, start + SETTLED), 4);
        assert_eq!(follow(3, start + SETTLED * 2), 3);
        assert_eq!(follow(6, start + SETTLED * 2), 3, "what grew before it shrank does not count");
        assert_eq!(follow(60, start + SETTLED * 3), 10, "never above its own limit");
    }
}

//! This daemon's share of the calls that all daemons together may have under way.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;
use crate::upstream::Registry;

/// A larger share is taken only after it has been this daemon's for so long: by then the others know of theirs.
const SETTLED: Duration = Duration::from_millis(2500);

/// Has the limit of all calls follow a share. Moved by the heartbeat.
pub(in crate::daemon) struct FairShare {
    most: usize,
    growing_since: Mutex<Option<Instant>>,
}

impl FairShare {
    /// A share of `most` at any time.
    pub(in crate::daemon) fn new(most: usize) -> Self {
        Self { most, growing_since: Mutex::default() }
    }

    /// Sets the limit to a share: down at once, up when it has settled.
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
    use crate::config::Dialect;
    use crate::domain::time::Clock;
    use crate::upstream::{NoUpstream, Server};

    #[test]
    fn a_share_shrinks_at_once_and_grows_when_it_has_settled() {
        let server = Server::embedded(NoUpstream, Dialect::Native, Clock::System);
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

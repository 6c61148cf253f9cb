//! What connections must keep to.

use std::time::Duration;

/// What connections must keep to. The defaults cut nobody who sends or reads a few KiB a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections that are open at once. Beyond them the one that has waited longest for a request is closed for a new
    /// one; if all are being answered, new ones wait.
    pub connections: usize,
    /// Uploads that are taken in at once. Others are answered with 503.
    pub uploads: usize,
    /// For the head of a request, from its first byte, and for a new connection to send its first head.
    pub head: Duration,
    /// A connection that has sent no request yet gives up its place for so long to nobody.
    pub new: Duration,
    /// For the next request on a connection that has had one. Longer than load balancers keep theirs, the longest 600
    /// seconds: one that is closed at this end first may carry a request already. It costs a place that is given up
    /// when another needs one.
    pub idle: Duration,
    /// For each KiB of a request's body.
    pub body: Duration,
    /// For a client that has stopped reading its answer.
    pub unread: Duration,
    /// For all of a body that has not come yet, and for answers that nobody reads, once the service stops.
    pub farewell: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            uploads: 1024,
            head: Duration::from_secs(30),
            new: Duration::from_secs(1),
            idle: Duration::from_secs(620),
            body: Duration::from_secs(60),
            unread: Duration::from_secs(120),
            farewell: Duration::from_secs(3),
        }
    }
}

impl ServerLimits {
    /// These limits with at most so many connections. Uploads have at most half of them, so that they never take the
    /// rest of the API away.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        let connections = self.connections.min(connections).max(2);
        Self { connections, uploads: self.uploads.min(connections / 2), ..self }
    }
}

//! The limits of connections.

use std::time::Duration;

/// The limits of connections. With the defaults, no client is cut that sends and reads a few KiB a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections that are open at once. A further connection replaces the one that has waited longest for a request.
    /// If requests of all connections are being answered, it waits.
    pub connections: usize,
    /// Uploads that run at once. Others are answered with 503.
    pub uploads: usize,
    /// Requests that wait at once for results or events. Others are answered with 503.
    pub waits: usize,
    /// Answers with results in the order of the input that are sent at once, as each holds where all lines are. Others
    /// are answered with 503.
    pub orders: usize,
    /// The time for the head of a request, from its first byte; also for the first head of a new connection.
    pub head: Duration,
    /// How long a new connection is protected: until then it is not replaced, even without a request.
    pub new: Duration,
    /// The time until the next request on a connection. It is longer than the idle time of load balancers, at most 600
    /// seconds: if this end closed first, a request could already be on its way. An idle connection costs nothing else,
    /// as it is replaced when another needs its slot.
    pub idle: Duration,
    /// The time of waiting for each KiB of a request's body.
    pub body: Duration,
    /// The time for a client that has stopped reading its response.
    pub unread: Duration,
    /// The time, once the service stops, for the rest of a body and for a response that the client does not read.
    pub farewell: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            uploads: 1024,
            waits: 1024,
            orders: 8,
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
    /// These limits with at most this many connections. Uploads get at most half of them, and requests that wait at
    /// most a quarter, so that they never block the rest of the API.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        let connections = self.connections.min(connections).max(2);
        let (uploads, waits) = (self.uploads.min(connections / 2), self.waits.min((connections / 4).max(1)));
        Self { connections, uploads, waits, ..self }
    }
}

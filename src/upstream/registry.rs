//! Which server a model's calls go to. Whatever calls an inference server, or asks how many calls may be under way,
//! finds the server here.

use std::sync::Arc;

use super::Server;

/// The inference servers of this process. Clones are the same registry.
#[derive(Debug, Clone)]
pub struct Registry {
    server: Arc<Server>,
}

impl Registry {
    /// A registry whose one server has every model.
    #[must_use]
    pub fn of(server: Server) -> Self {
        Self { server: Arc::new(server) }
    }

    /// The server that the calls of a model go to. An empty name leaves the choice to the server.
    #[must_use]
    pub fn route(&self, _model: &str) -> Arc<Server> {
        self.server.clone()
    }

    /// All servers.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        std::iter::once(&self.server)
    }

    /// How many calls may be under way at all servers together.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.server.limiter().limit()
    }

    /// How many rows have a permit of any server.
    #[must_use]
    pub fn permits_held(&self) -> usize {
        self.server.limiter().held()
    }

    /// Sets how many calls may be under way at all servers together.
    pub fn set_limit(&self, limit: usize) {
        self.server.set_limit(limit);
    }
}

//! The servers that models' calls go to. Whatever calls an inference server, or asks how many calls may be under way,
//! finds the server here.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use futures::future::{Either, join_all, select};
use tokio::sync::Notify;

use super::limiter::Limiter;
use super::route::{Route, Routes};
use super::served_models::Fit;
use super::server::Server;
use crate::sync::{lock, read_lock, write_lock};

/// How often servers are asked for their models, and how often if they have not told them yet.
const DISCOVER_EVERY: Duration = Duration::from_secs(60);
const DISCOVER_FIRST: Duration = Duration::from_secs(5);

/// The inference servers of this process. Clones are the same registry.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bounds the calls of all servers together.
    limiter: Limiter,
    servers: RwLock<Arc<[Arc<Server>]>>,
    /// Counts the changes of servers and their models.
    generation: AtomicU64,
    /// Told of them, for rows that wait for a server.
    changed: Notify,
    /// Told when there are other servers.
    replaced: Notify,
    /// Models of batches that no server has.
    unserved: Mutex<BTreeSet<Arc<str>>>,
}

impl Registry {
    /// A registry of one server.
    #[must_use]
    pub fn of(server: Server) -> Self {
        Self::of_all(vec![Arc::new(server)])
    }

    /// A registry of several servers.
    #[must_use]
    pub fn of_all(servers: Vec<Arc<Server>>) -> Self {
        let shared = Shared {
            limiter: Limiter::new(0),
            servers: RwLock::new(servers.into()),
            generation: AtomicU64::new(0),
            changed: Notify::new(),
            replaced: Notify::new(),
            unserved: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has other servers from now on. Calls under way at servers that are no longer among them go on.
    pub fn replace(&self, servers: Vec<Arc<Server>>) {
        for server in &servers {
            server.follow_limit(self.limit());
        }
        *write_lock(&self.shared.servers) = servers.into();
        self.note_change();
        self.shared.replaced.notify_waiters();
    }

    fn note_change(&self) {
        self.shared.generation.fetch_add(1, Relaxed);
        self.shared.changed.notify_waiters();
    }

    /// The ways of a model's calls: the servers that have it by name, or those that take any model if there are none.
    /// An empty name leaves the choice to the servers.
    #[must_use]
    pub fn routes(&self, model: &Arc<str>) -> Routes {
        let servers = self.servers();
        let best = self.best_fit(model);
        let fitting = servers.iter().filter(|server| best != Fit::No && server.models_served().fit(model) == best);
        Routes::new(model, fitting.map(|server| Route::new(server, model)).collect())
    }

    /// Whether any server has a model.
    #[must_use]
    pub fn serves(&self, model: &str) -> bool {
        self.best_fit(model) != Fit::No
    }

    fn best_fit(&self, model: &str) -> Fit {
        let servers = self.servers();
        servers.iter().map(|server| server.models_served().fit(model)).max().unwrap_or(Fit::No)
    }

    /// Whether a server has not told its models yet.
    #[must_use]
    pub fn may_learn_of_models(&self) -> bool {
        self.servers().iter().any(|server| server.models_served().are_unknown())
    }

    /// Counts the changes of servers and their models: the routes that were asked for before one are out of date.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Relaxed)
    }

    /// Waits for a change of servers or their models after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> {
        self.shared.changed.notified()
    }

    /// All servers.
    #[must_use]
    pub fn servers(&self) -> Arc<[Arc<Server>]> {
        read_lock(&self.shared.servers).clone()
    }

    /// The bound of the calls that may be under way at all servers together.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.shared.limiter
    }

    /// How many calls may be under way at all servers together.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limiter().limit()
    }

    /// How many rows have a permit.
    #[must_use]
    pub fn permits_held(&self) -> usize {
        self.limiter().held()
    }

    /// Sets how many calls may be under way at all servers together.
    pub fn set_limit(&self, limit: usize) {
        self.limiter().set_limit(limit);
        for server in &*self.servers() {
            server.follow_limit(limit);
        }
    }

    /// Notes which models of open batches no server has. Those that are new are logged.
    pub fn note_unserved(&self, models: BTreeSet<Arc<str>>) {
        let mut unserved = lock(&self.shared.unserved);
        for model in models.difference(&unserved) {
            tracing::warn!(%model, "no upstream has this model: the rows of its batches wait");
        }
        *unserved = models;
    }

    /// The models of open batches that no server has.
    #[must_use]
    pub fn unserved(&self) -> Vec<Arc<str>> {
        lock(&self.shared.unserved).iter().cloned().collect()
    }

    /// Follows the time, the answers and the models of the servers, and calls `tell` whenever rows may begin that could
    /// not. Never ends.
    pub async fn follow(&self, tell: impl Fn() + Send + Sync) {
        loop {
            let replaced = self.shared.replaced.notified();
            let servers = self.servers();
            tell();
            let following = join_all(servers.iter().map(|server| self.follow_one(server, &tell)));
            tokio::pin!(replaced);
            if let Either::Left(_) = select(following, &mut replaced).await {
                replaced.await;
            }
        }
    }

    async fn follow_one(&self, server: &Server, tell: &(impl Fn() + Send + Sync)) {
        tokio::join!(server.follow(tell), self.discover(server, tell), server.follow_metrics());
    }

    /// Asks a server for its models again and again, if its list says which it has.
    async fn discover(&self, server: &Server, tell: &(impl Fn() + Send + Sync)) {
        let models = server.models_served();
        while models.are_discovered() {
            match server.discover().await {
                Ok(true) => {
                    self.note_change();
                    tell();
                }
                Err(why) if models.note_failure(why.clone()) => {
                    tracing::warn!(upstream = %server.name(), why, "an upstream does not tell which models it has");
                }
                Ok(false) | Err(_) => {}
            }
            tokio::time::sleep(if models.are_unknown() { DISCOVER_FIRST } else { DISCOVER_EVERY }).await;
        }
    }
}

//! Who may call: keys, calls without one, and what stands around the routes to ask for either.

mod audit;
mod browser;
mod credentials;
mod guard;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use quick_cache::sync::Cache;
use tokio::time::Instant;

pub(crate) use audit::AuditedCall;
pub(super) use audit::ObjectId;
pub(crate) use browser::{comes_from_this_site, host, names_this_machine};
pub(super) use guard::guard;

use super::{ApiError, Caller};
use crate::domain::api_key::{ApiKey, KeyScope, KeyScopes, SecretHash, USE_RESOLUTION, masked};
use crate::domain::time::Clock;
use crate::storage::{Storage, StorageError};
use crate::sync::lock;
use crate::telemetry::chain;

/// How long what was read of a key is relied upon. A client that asks for a status hundreds of times a second costs one
/// read, and a key that is revoked is refused within this time and that of a read, by every replica.
const VALIDITY: Duration = Duration::from_secs(1);

/// Keys that are remembered at once.
const REMEMBERED: usize = 4096;

/// Decides whose calls are answered.
///
/// Calls without a key are answered as long as no key was ever made and the service listens on a loopback address. The
/// first key ends that for good: revoking it again must not open the service to those whom it kept out. With
/// `--allow-anonymous`, calls without a key are always answered.
pub struct Access {
    storage: Arc<dyn Storage>,
    clock: Clock,
    allows_anonymous: bool,
    /// Written once, by the service that begins to listen. Until then nobody without a key is answered.
    listens_on_loopback: AtomicBool,
    /// Whether there are keys, as it was last read.
    in_force: Mutex<Option<(Instant, bool)>>,
    /// By the hash of the key. Refusals are not remembered, so that a new key is good at once.
    known: Cache<SecretHash, (Instant, Arc<ApiKey>)>,
}

impl Access {
    /// Access to what a storage has. `allows_anonymous`: the setting.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, clock: Clock, allows_anonymous: bool) -> Self {
        Self {
            storage,
            clock,
            allows_anonymous,
            listens_on_loopback: AtomicBool::new(false),
            in_force: Mutex::default(),
            known: Cache::new(REMEMBERED),
        }
    }

    /// Notes the address that the service listens on.
    pub fn listen_on(&self, address: SocketAddr) {
        self.listens_on_loopback.store(address.ip().to_canonical().is_loopback(), Ordering::Relaxed);
    }

    /// Whom a request acts for.
    ///
    /// # Errors
    /// Its key is missing or not good, or the storage does not answer.
    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let sent = credentials::key(headers);
        match (self.keys_are_in_force().await?, sent) {
            (true, Some(key)) => match self.holder(key).await? {
                Some(key) => Ok(Caller::of_key(ApiKey::clone(&key))),
                None => Err(ApiError::incorrect_key(&masked(key))),
            },
            (true, None) if self.allows_anonymous => {
                let scopes = KeyScopes::parse(KeyScope::Write.as_str()).expect("it is a scope");
                Ok(Caller::anonymous(scopes))
            }
            // Every SDK sends a key, so that one of any text is as good as none.
            (false, _) if self.answers_without_key() => Ok(Caller::anonymous(KeyScopes::all())),
            (_, Some(key)) => Err(ApiError::incorrect_key(&masked(key))),
            (_, None) => Err(ApiError::missing_key()),
        }
    }

    /// Whether calls without a key are answered because the operator says so, and not because they come from here.
    pub(super) fn allows_anonymous(&self) -> bool {
        self.allows_anonymous
    }

    /// Whether calls without a key are answered while there are no keys.
    pub(crate) fn answers_without_key(&self) -> bool {
        self.allows_anonymous || self.listens_on_loopback.load(Ordering::Relaxed)
    }

    /// Whether a request comes from an operator, by what was read last if the storage does not answer soon: for what
    /// tells of such an outage.
    pub(super) async fn is_operator(&self, headers: &HeaderMap, patience: Duration) -> bool {
        if let Ok(Ok(caller)) = tokio::time::timeout(patience, self.caller(headers)).await {
            return caller.may(KeyScope::Admin);
        }
        let had_none = matches!(*lock(&self.in_force), None | Some((_, false)));
        had_none && self.answers_without_key()
    }

    /// Whether any key was ever made.
    pub(crate) async fn keys_are_in_force(&self) -> Result<bool, StorageError> {
        match *lock(&self.in_force) {
            Some((_, true)) => return Ok(true),
            Some((read_at, false)) if read_at.elapsed() < VALIDITY => return Ok(false),
            _ => {}
        }
        let read_at = Instant::now();
        let has_keys = self.storage.has_keys().await?;
        let mut known = lock(&self.in_force);
        // A read that began before there were keys may end after one that has found them.
        let has_keys = has_keys || matches!(*known, Some((_, true)));
        *known = Some((read_at, has_keys));
        Ok(has_keys)
    }

    /// The key that a client has sent, if there is such a key and it was not revoked.
    pub(crate) async fn holder(&self, key: &str) -> Result<Option<Arc<ApiKey>>, StorageError> {
        let hash = SecretHash::of(key);
        if let Some((read_at, key)) = self.known.get(&hash)
            && read_at.elapsed() < VALIDITY
        {
            return Ok(Some(key));
        }
        let read_at = Instant::now();
        let Some(key) = self.storage.key_of(&hash).await? else {
            self.known.remove(&hash);
            return Ok(None);
        };
        self.note_use(&key);
        let key = Arc::new(key);
        self.known.insert(hash, (read_at, key.clone()));
        Ok(Some(key))
    }

    /// Notes that a key was used, without waiting: no call is delayed or refused because it cannot be noted.
    fn note_use(&self, key: &ApiKey) {
        let now = self.clock.now();
        let noted = now.minus(USE_RESOLUTION);
        if key.last_used_at.is_some_and(|at| at > noted) {
            return;
        }
        let (storage, id) = (self.storage.clone(), key.id);
        tokio::spawn(async move {
            if let Err(error) = storage.note_use(id, now, noted).await {
                tracing::debug!(key_id = %id, error = chain(&error), "the use of a key could not be noted");
            }
        });
    }
}

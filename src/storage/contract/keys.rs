//! What is kept of API keys, and of the sessions of the dashboard that they open.

use async_trait::async_trait;

use super::Result;
use crate::domain::api_key::{ApiKey, SecretHash};
use crate::domain::ids::KeyId;
use crate::domain::owner::Owner;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;

/// API keys and sessions. These methods find out whom a client acts for, so that most of them cannot take the owner:
/// what a client gives to them is a secret that it has.
#[async_trait]
pub trait KeyStore {
    /// Keeps a key.
    async fn create_key(&self, key: &ApiKey, hash: &SecretHash) -> Result<()>;

    /// Whether any key was ever made. From then on it is true for good: revoking the last key opens nothing.
    async fn has_keys(&self) -> Result<bool>;

    /// The key with this hash, unless it was revoked.
    async fn key_of(&self, hash: &SecretHash) -> Result<Option<ApiKey>>;

    /// The keys of an owner or of all, revoked ones too, in the order in which they were made: at most `limit` after
    /// `after`. For operators, never for a client.
    async fn any_keys(&self, owner: Option<&Owner>, after: Option<KeyId>, limit: u32) -> Result<Page<ApiKey>>;

    /// Revokes a key, and with it the sessions it has opened. Returns it; `None` if it was never made. For operators,
    /// never for a client.
    async fn any_revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<ApiKey>>;

    /// Notes that a key was used at `now`, unless a use later than `noted` was noted already.
    async fn note_use(&self, id: KeyId, now: Timestamp, noted: Timestamp) -> Result<()>;

    /// Keeps a session, which a key has opened, until `expires_at`. Forgets some that have expired at `now`.
    async fn create_session(&self, token: &SecretHash, key: KeyId, expires_at: Timestamp, now: Timestamp)
    -> Result<()>;

    /// The key that has opened a session, unless the session has ended or the key was revoked.
    async fn key_of_session(&self, token: &SecretHash, now: Timestamp) -> Result<Option<ApiKey>>;

    /// Ends a session.
    async fn end_session(&self, token: &SecretHash) -> Result<()>;
}

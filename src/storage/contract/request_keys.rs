//! What is kept of idempotency keys.
//!
//! A key is kept in the transaction that creates the object: see [`NewFile::key`](super::NewFile::key) and
//! [`UploadStore`](super::UploadStore).

use async_trait::async_trait;

use super::Result;
use crate::domain::owner::Owner;
use crate::domain::request_key::KeyUse;
use crate::domain::time::Timestamp;

/// Idempotency keys of requests. Each is known for [`KEY_LIFE`](crate::domain::request_key::KEY_LIFE).
#[async_trait]
pub trait RequestKeyStore {
    /// The first use of a key of the owner, if it is known.
    async fn key_use(&self, owner: &Owner, key: &str, now: Timestamp) -> Result<Option<KeyUse>>;
}

//! Idempotency keys.

use async_trait::async_trait;

use super::{SqlStorage, on_reader};
use crate::domain::owner::Owner;
use crate::domain::request_key::KeyUse;
use crate::domain::time::Timestamp;
use crate::storage::{RequestKeyStore, Result};

#[async_trait]
impl RequestKeyStore for SqlStorage {
    async fn key_use(&self, owner: &Owner, key: &str, now: Timestamp) -> Result<Option<KeyUse>> {
        let known = on_reader!(self.db, request_keys::key_use(owner, key, now))?;
        Ok(known.map(|(fingerprint, object)| KeyUse { fingerprint, object }))
    }
}

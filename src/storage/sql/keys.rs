//! API keys, and the sessions of the dashboard that they open.

use async_trait::async_trait;
use uuid::Uuid;

use super::readable::Gathered;
use super::{SqlStorage, corrupt, in_write, on_reader, owner_of};
use crate::domain::api_key::{ApiKey, KeyScopes, SecretHash};
use crate::domain::ids::KeyId;
use crate::domain::owner::Owner;
use crate::domain::page::Page;
use crate::domain::time::Timestamp;
use crate::storage::{KeyStore, Result, StorageError};

/// The columns of [`KeyRow`].
macro_rules! key_columns {
    () => {
        "api_keys.id, api_keys.owner, api_keys.name, api_keys.scopes, api_keys.ending, api_keys.created_at, \
         api_keys.last_used_at, api_keys.revoked_at"
    };
}

pub(super) use key_columns;

#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    id: Uuid,
    owner: String,
    name: String,
    scopes: String,
    ending: String,
    created_at: i64,
    last_used_at: Option<i64>,
    revoked_at: Option<i64>,
}

impl TryFrom<KeyRow> for ApiKey {
    type Error = StorageError;

    fn try_from(row: KeyRow) -> Result<Self> {
        let id = KeyId(row.id);
        Ok(Self {
            id,
            owner: owner_of(&row.owner, "api_keys", id)?,
            name: row.name,
            scopes: KeyScopes::parse(&row.scopes).ok_or_else(|| corrupt("api_keys", "scopes", id))?,
            ending: row.ending,
            created_at: Timestamp(row.created_at),
            last_used_at: row.last_used_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
        })
    }
}

#[async_trait]
impl KeyStore for SqlStorage {
    async fn create_key(&self, key: &ApiKey, hash: &SecretHash) -> Result<()> {
        in_write!(self.db, keys::create(key, hash))
    }

    async fn has_keys(&self) -> Result<bool> {
        on_reader!(self.db, keys::any())
    }

    async fn key_of(&self, hash: &SecretHash) -> Result<Option<ApiKey>> {
        let row = on_reader!(self.db, keys::of_hash(hash))?;
        row.map(ApiKey::try_from).transpose()
    }

    async fn any_keys(&self, owner: Option<&Owner>, after: Option<KeyId>, limit: u32) -> Result<Page<ApiKey>> {
        let mut gathered = Gathered::with_limit(limit);
        let mut next = Some(after.map_or(Uuid::nil(), |after| after.0));
        while let Some(after) = next {
            let rows = on_reader!(self.db, keys::page(owner, after, gathered.missing()))?;
            next = gathered.take(rows);
        }
        Ok(gathered.page())
    }

    async fn any_revoke_key(&self, id: KeyId, now: Timestamp) -> Result<Option<ApiKey>> {
        let row = in_write!(self.db, keys::revoke(id, now))?;
        row.map(ApiKey::try_from).transpose()
    }

    async fn note_use(&self, id: KeyId, now: Timestamp, noted: Timestamp) -> Result<()> {
        in_write!(self.db, keys::note_use(id, now, noted))
    }

    async fn create_session(
        &self,
        token: &SecretHash,
        key: KeyId,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        in_write!(self.db, keys::create_session(token, key, expires_at, now))
    }

    async fn key_of_session(&self, token: &SecretHash, now: Timestamp) -> Result<Option<ApiKey>> {
        let row = on_reader!(self.db, keys::of_session(token, now))?;
        row.map(ApiKey::try_from).transpose()
    }

    async fn end_session(&self, token: &SecretHash) -> Result<()> {
        in_write!(self.db, keys::end_session(token))
    }
}

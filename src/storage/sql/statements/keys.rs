//! API keys, and the sessions of the dashboard that they open.

use sqlx::Row as _;
use uuid::Uuid;

use super::query::{query, query_as, query_scalar};
use super::{Conn, Row};
use crate::domain::api_key::{ApiKey, SecretHash};
use crate::domain::ids::KeyId;
use crate::domain::owner::Owner;
use crate::domain::time::Timestamp;
use crate::storage::Result;
use crate::storage::sql::End;
use crate::storage::sql::keys::{KeyRow, key_columns};
use crate::storage::sql::readable::{Placed, read_row};

const INSERT: &str = "
    INSERT INTO api_keys (id, owner, name, scopes, hash, ending, created_at, last_used_at, revoked_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const ANY: &str = "SELECT 1 FROM api_keys LIMIT 1";

const OF_HASH: &str =
    concat!("SELECT api_keys.hash, ", key_columns!(), " FROM api_keys WHERE hash = $1 AND revoked_at IS NULL");

const PAGE: &str = concat!("SELECT ", key_columns!(), " FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2");

const PAGE_OF_OWNER: &str =
    concat!("SELECT ", key_columns!(), " FROM api_keys WHERE owner = $3 AND id > $1 ORDER BY id LIMIT $2");

const REVOKE: &str =
    concat!("UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1 RETURNING ", key_columns!());

const NOTE_USE: &str = "
    UPDATE api_keys SET last_used_at = $2
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at <= $3)";

const INSERT_SESSION: &str = "
    INSERT INTO dashboard_sessions (hash, key_id, expires_at)
    VALUES ($1, $2, $3)";

// A revoked key ends its sessions by being revoked.
const OF_SESSION: &str = concat!(
    "SELECT ",
    key_columns!(),
    " FROM dashboard_sessions JOIN api_keys ON api_keys.id = dashboard_sessions.key_id
    WHERE dashboard_sessions.hash = $1 AND dashboard_sessions.expires_at > $2 AND api_keys.revoked_at IS NULL"
);

const END_SESSION: &str = "DELETE FROM dashboard_sessions WHERE hash = $1";

const FORGET_SESSIONS: &str = "
    DELETE FROM dashboard_sessions
    WHERE hash IN (SELECT hash FROM dashboard_sessions WHERE expires_at <= $1 ORDER BY expires_at LIMIT 100)";

pub async fn create(tx: &mut Conn, key: &ApiKey, hash: &SecretHash) -> Result<End<()>> {
    query(INSERT)
        .bind(key.id.0)
        .bind(key.owner.as_str())
        .bind(&key.name)
        .bind(key.scopes.to_string())
        .bind(&hash.0[..])
        .bind(&key.ending)
        .bind(key.created_at.0)
        .bind(key.last_used_at.map(|at| at.0))
        .bind(key.revoked_at.map(|at| at.0))
        .execute(tx)
        .await?;
    Ok(End::Commit(()))
}

pub async fn any(conn: &mut Conn) -> Result<bool> {
    let any: Option<i32> = query_scalar(ANY).fetch_optional(conn).await?;
    Ok(any.is_some())
}

/// The index has found the hash; that it is the one asked for is decided by [`SecretHash`]'s own comparison.
pub async fn of_hash(conn: &mut Conn, hash: &SecretHash) -> Result<Option<KeyRow>> {
    let Some(row) = query(OF_HASH).bind(&hash.0[..]).fetch_optional(conn).await? else { return Ok(None) };
    let stored: Vec<u8> = row.try_get("hash")?;
    let is_asked_for = <[u8; 32]>::try_from(stored).is_ok_and(|stored| SecretHash(stored) == *hash);
    if is_asked_for { Ok(Some(sqlx::FromRow::from_row(&row)?)) } else { Ok(None) }
}

/// The first `limit` keys behind the id `after`.
pub async fn page(
    conn: &mut Conn,
    owner: Option<&Owner>,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Placed<Uuid, ApiKey>>> {
    let rows = match owner {
        None => query(PAGE).bind(after).bind(limit).fetch_all(conn).await?,
        Some(owner) => query(PAGE_OF_OWNER).bind(after).bind(limit).bind(owner.as_str()).fetch_all(conn).await?,
    };
    Ok(rows.iter().map(placed).collect())
}

fn placed(row: &Row) -> Placed<Uuid, ApiKey> {
    let id: Option<Uuid> = row.try_get("id").ok();
    let name = id.map(|id| KeyId(id).to_string());
    Placed { place: id, read: read_row::<_, KeyRow, ApiKey>("api_keys", name, row) }
}

pub async fn revoke(tx: &mut Conn, id: KeyId, now: Timestamp) -> Result<End<Option<KeyRow>>> {
    Ok(End::Commit(query_as(REVOKE).bind(id.0).bind(now.0).fetch_optional(tx).await?))
}

pub async fn note_use(tx: &mut Conn, id: KeyId, now: Timestamp, noted: Timestamp) -> Result<End<()>> {
    query(NOTE_USE).bind(id.0).bind(now.0).bind(noted.0).execute(tx).await?;
    Ok(End::Commit(()))
}

pub async fn create_session(
    tx: &mut Conn,
    token: &SecretHash,
    key: KeyId,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<End<()>> {
    query(FORGET_SESSIONS).bind(now.0).execute(&mut *tx).await?;
    query(INSERT_SESSION).bind(&token.0[..]).bind(key.0).bind(expires_at.0).execute(tx).await?;
    Ok(End::Commit(()))
}

pub async fn of_session(conn: &mut Conn, token: &SecretHash, now: Timestamp) -> Result<Option<KeyRow>> {
    Ok(query_as(OF_SESSION).bind(&token.0[..]).bind(now.0).fetch_optional(conn).await?)
}

pub async fn end_session(tx: &mut Conn, token: &SecretHash) -> Result<End<()>> {
    query(END_SESSION).bind(&token.0[..]).execute(tx).await?;
    Ok(End::Commit(()))
}

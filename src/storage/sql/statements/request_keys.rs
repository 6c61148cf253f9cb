//! Idempotency keys.

use super::Conn;
use super::query::{query, query_as};
use crate::domain::owner::Owner;
use crate::domain::request_key::{KEY_LIFE, RequestKey};
use crate::domain::time::Timestamp;
use crate::storage::Result;
use crate::storage::sql::End;

// A key whose time is over is as good as a fresh one.
const FORGET_OLD: &str = "DELETE FROM idempotency_keys WHERE owner = $1 AND key = $2 AND created_at <= $3";
// Of two requests at the same time, one waits here for the other, and then changes nothing.
const CLAIM: &str = "
    INSERT INTO idempotency_keys (owner, key, fingerprint, object, created_at)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (owner, key) DO NOTHING";
const KEY_USE: &str = "
    SELECT fingerprint, object
    FROM idempotency_keys
    WHERE owner = $1 AND key = $2 AND created_at > $3";
const FORGET: &str = "
    DELETE FROM idempotency_keys
    WHERE (owner, key) IN (
        SELECT owner, key FROM idempotency_keys WHERE created_at <= $1 ORDER BY created_at LIMIT $2
    )";

/// Keeps the key of a request, if it has one, for the object that it creates. False if the key was used before: the
/// transaction must then be rolled back.
pub async fn claim(
    tx: &mut Conn,
    owner: &Owner,
    key: Option<&RequestKey>,
    object: &str,
    now: Timestamp,
) -> Result<bool> {
    let Some(RequestKey { key, fingerprint }) = key else { return Ok(true) };
    query(FORGET_OLD).bind(owner.as_str()).bind(key).bind(now.minus(KEY_LIFE).0).execute(&mut *tx).await?;
    let claimed =
        query(CLAIM).bind(owner.as_str()).bind(key).bind(fingerprint).bind(object).bind(now.0).execute(tx).await?;
    Ok(claimed.rows_affected() == 1)
}

/// The fingerprint of the first request with a key, and the object that it made.
pub async fn key_use(conn: &mut Conn, owner: &Owner, key: &str, now: Timestamp) -> Result<Option<(String, String)>> {
    Ok(query_as(KEY_USE).bind(owner.as_str()).bind(key).bind(now.minus(KEY_LIFE).0).fetch_optional(conn).await?)
}

pub async fn forget(tx: &mut Conn, now: Timestamp, limit: u32) -> Result<End<u64>> {
    let forgotten = query(FORGET).bind(now.minus(KEY_LIFE).0).bind(i64::from(limit)).execute(tx).await?;
    Ok(End::Commit(forgotten.rows_affected()))
}

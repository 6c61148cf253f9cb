//! The database as a whole, and the blob store that belongs to it.

use uuid::Uuid;

use super::Conn;
use super::query::{query, query_scalar};
use crate::domain::ids::BlobId;
use crate::storage::Result;
use crate::storage::sql::End;

const SET_BLOB_STORE: &str = "
    INSERT INTO deployment (only_row, blob_store_id)
    VALUES (1, $1)
    ON CONFLICT (only_row) DO NOTHING";
const NAMES_BLOBS: &str = "
    SELECT 1
    WHERE EXISTS (SELECT 1 FROM file_parts)
       OR EXISTS (SELECT 1 FROM upload_parts)
       OR EXISTS (SELECT 1 FROM retired_blobs)";
const BLOB_STORE: &str = "SELECT blob_store_id FROM deployment";

pub async fn check(conn: &mut Conn) -> Result<()> {
    query("SELECT 1").execute(conn).await?;
    Ok(())
}

pub async fn names_blobs(conn: &mut Conn) -> Result<bool> {
    let any: Option<i32> = query_scalar(NAMES_BLOBS).fetch_optional(conn).await?;
    Ok(any.is_some())
}

pub async fn blob_store(conn: &mut Conn) -> Result<Option<BlobId>> {
    let id: Option<Uuid> = query_scalar(BLOB_STORE).fetch_optional(conn).await?;
    Ok(id.map(BlobId))
}

/// Sets the blob store unless there is one, and returns the one that there is then.
pub async fn set_blob_store(tx: &mut Conn, candidate: BlobId) -> Result<End<BlobId>> {
    query(SET_BLOB_STORE).bind(candidate.0).execute(&mut *tx).await?;
    let id: Uuid = query_scalar(BLOB_STORE).fetch_one(tx).await?;
    Ok(End::Commit(BlobId(id)))
}

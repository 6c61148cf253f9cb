//! What projects use of what they may.

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::Conn;
use super::batches::placed;
use super::files::visible_at;
use super::query::{query, query_as, query_scalar};
use crate::domain::batch::Batch;
use crate::domain::owner::Owner;
use crate::domain::time::Timestamp;
use crate::storage::Result;
use crate::storage::sql::batches::batch_columns;
use crate::storage::sql::projects::OwingRow;
use crate::storage::sql::readable::Placed;

/// Batches that are read to find one that can be read.
const TRIED: i64 = 8;

// The limit bounds what is read, however many batches are in progress.
const OWING: &str = "
    SELECT input_file_id, total, completed + failed AS ended
    FROM batches
    WHERE owner = $1 AND status = 'in_progress' AND completed + failed < total
    ORDER BY expires_at
    LIMIT $2";

/// Deleted files too, which batches may still run.
const SIZES: &str = "SELECT id, bytes FROM files WHERE owner = ";

// Ids are made in the order of creation.
const FIRST_TO_ADMIT: &str = concat!(
    "SELECT ",
    batch_columns!(),
    " FROM batches WHERE owner = $1 AND status = 'validating' ORDER BY id LIMIT $2"
);

const BYTES_OF_FILES: &str =
    concat!("SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM files WHERE owner = $1 AND ", visible_at!("$2"));

const BYTES_OF_PARTS: &str = "
    SELECT CAST(COALESCE(SUM(upload_parts.bytes), 0) AS BIGINT)
    FROM uploads JOIN upload_parts ON upload_parts.upload_id = uploads.id
    WHERE uploads.owner = $1 AND uploads.status = 'pending' AND uploads.expires_at > $2";

pub async fn owing(conn: &mut Conn, owner: &Owner, limit: u32) -> Result<Vec<OwingRow>> {
    Ok(query_as(OWING).bind(owner.as_str()).bind(i64::from(limit)).fetch_all(conn).await?)
}

/// The sizes of files, of which there must be one.
pub async fn sizes(conn: &mut Conn, owner: &Owner, files: &[Uuid]) -> Result<Vec<(Uuid, i64)>> {
    let mut query = QueryBuilder::new(SIZES);
    query.push_bind(owner.as_str()).push(" AND id IN (");
    let mut ids = query.separated(", ");
    for id in files {
        ids.push_bind(*id);
    }
    query.push(")");
    // Its text differs with how many there are, so that it is not worth keeping prepared.
    Ok(query.build_query_as().persistent(false).fetch_all(conn).await?)
}

pub async fn first_to_admit(conn: &mut Conn, owner: &Owner) -> Result<Vec<Placed<Uuid, Batch>>> {
    let rows = query(FIRST_TO_ADMIT).bind(owner.as_str()).bind(TRIED).fetch_all(conn).await?;
    Ok(rows.iter().map(|row| placed(row, Some)).collect())
}

/// The bytes of files, and those of parts of uploads.
pub async fn stored_bytes(conn: &mut Conn, owner: &Owner, now: Timestamp) -> Result<[i64; 2]> {
    let files = query_scalar(BYTES_OF_FILES).bind(owner.as_str()).bind(now.0).fetch_one(&mut *conn).await?;
    let parts = query_scalar(BYTES_OF_PARTS).bind(owner.as_str()).bind(now.0).fetch_one(conn).await?;
    Ok([files, parts])
}

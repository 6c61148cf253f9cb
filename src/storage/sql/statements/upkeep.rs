//! Merging parts, and letting go of files and blobs.

use std::time::Duration;

use roaring::RoaringBitmap;
use uuid::Uuid;

use super::Conn;
use super::query::{query, query_as, query_scalar};
use crate::domain::file::FilePart;
use crate::domain::ids::{BlobId, FileId};
use crate::domain::time::Timestamp;
use crate::storage::sql::ledger::{decode, encode};
use crate::storage::sql::readable::Placed;
use crate::storage::sql::{End, corrupt, to_i64, to_u64};
use crate::storage::{Result, TieredPart};

/// How long what was replaced or is not visible any more can still be read by those who have begun to.
pub const KEPT: Duration = Duration::from_secs(3600);

const TIERED_PARTS: &str = "SELECT no, blob, bytes, tier FROM file_parts WHERE file_id = $1 ORDER BY no";

const ROWS_OF_PART: &str = "SELECT rows FROM file_parts WHERE blob = $1 AND file_id = $2";
// Of two who merge the same parts, one waits here for the other and then finds nothing to remove.
const REMOVE_PART: &str = "DELETE FROM file_parts WHERE blob = $1 AND file_id = $2";
const INSERT_MERGED: &str = "
    INSERT INTO file_parts (file_id, no, blob, bytes, rows, tier)
    VALUES ($1, $2, $3, $4, $5, $6)";
// One that is retired already stays so: an error would keep the other files of the step from being forgotten.
const RETIRE_BLOB: &str =
    "INSERT INTO retired_blobs (blob, delete_after) VALUES ($1, $2) ON CONFLICT (blob) DO NOTHING";

// By id among those of an age: two replicas that lock the same files in different orders would wait for each other.
const TO_RETIRE: &str = "SELECT id, owner FROM files WHERE retired_at <= $1 ORDER BY retired_at, id LIMIT $2";
const IS_PINNED: &str = "
    SELECT 1
    FROM batches
    WHERE input_file_id = $1 AND owner = $2 AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
    LIMIT 1";
const PUT_OFF: &str = "UPDATE files SET retired_at = $2 WHERE id = $1";
const FORGET_FILE: &str = "DELETE FROM files WHERE id = $1 RETURNING index_blob";
const RETIRE_PARTS: &str = "
    INSERT INTO retired_blobs (blob, delete_after)
    SELECT blob, $2 FROM file_parts WHERE file_id = $1
    ON CONFLICT (blob) DO NOTHING";
const FORGET_PARTS: &str = "DELETE FROM file_parts WHERE file_id = $1";

const RETIRED: &str = "
    SELECT delete_after, blob
    FROM retired_blobs
    WHERE delete_after <= $1 AND (delete_after, blob) > ($2, $3)
    ORDER BY delete_after, blob
    LIMIT $4";
const FORGET_BLOB: &str = "DELETE FROM retired_blobs WHERE blob = $1";

const IS_KNOWN: &str = "
    SELECT 1 FROM file_parts WHERE blob = $1
    UNION ALL
    SELECT 1 FROM files WHERE index_blob = $1
    UNION ALL
    SELECT 1 FROM upload_parts WHERE blob = $1
    UNION ALL
    SELECT 1 FROM retired_blobs WHERE blob = $1";

pub async fn tiered_parts(conn: &mut Conn, id: FileId) -> Result<Vec<TieredPart>> {
    let rows: Vec<(i64, Uuid, i64, i64)> = query_as(TIERED_PARTS).bind(id.0).fetch_all(conn).await?;
    let part = |(no, blob, bytes, tier)| {
        let part = FilePart { blob: BlobId(blob), bytes: to_u64(bytes) };
        TieredPart { no, part, tier }
    };
    Ok(rows.into_iter().map(part).collect())
}

pub async fn merge_parts(
    tx: &mut Conn,
    file: FileId,
    parts: &[TieredPart],
    merged: FilePart,
    now: Timestamp,
) -> Result<End<bool>> {
    let mut rows = RoaringBitmap::new();
    for TieredPart { part, .. } in parts {
        let recorded: Option<Option<Vec<u8>>> =
            query_scalar(ROWS_OF_PART).bind(part.blob.0).bind(file.0).fetch_optional(&mut *tx).await?;
        let removed = query(REMOVE_PART).bind(part.blob.0).bind(file.0).execute(&mut *tx).await?;
        if removed.rows_affected() != 1 {
            return Ok(End::Rollback(false));
        }
        if let Some(recorded) = recorded.flatten() {
            rows |= decode(&recorded).ok_or_else(|| corrupt("file_parts", "rows", file))?;
        }
        retire_blob(tx, part.blob, now.plus(KEPT)).await?;
    }
    let no = parts.first().map_or(0, |part| part.no);
    let tier = parts.iter().map(|part| part.tier).max().unwrap_or(0) + 1;
    insert_merged(tx, file, &TieredPart { no, part: merged, tier }, &rows).await?;
    Ok(End::Commit(true))
}

async fn insert_merged(tx: &mut Conn, file: FileId, merged: &TieredPart, rows: &RoaringBitmap) -> Result<()> {
    query(INSERT_MERGED)
        .bind(file.0)
        .bind(merged.no)
        .bind(merged.part.blob.0)
        .bind(to_i64(merged.part.bytes))
        .bind(Some(encode(rows)))
        .bind(merged.tier)
        .execute(tx)
        .await?;
    Ok(())
}

async fn retire_blob(tx: &mut Conn, blob: BlobId, delete_after: Timestamp) -> Result<()> {
    query(RETIRE_BLOB).bind(blob.0).bind(delete_after.0).execute(tx).await?;
    Ok(())
}

pub async fn retire_files(tx: &mut Conn, now: Timestamp, limit: u32) -> Result<End<u32>> {
    // An hour later than it could: whoever has found a file before it vanished is through with what they do.
    let old: Vec<(Uuid, String)> =
        query_as(TO_RETIRE).bind(now.minus(KEPT).0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let looked_at = u32::try_from(old.len()).unwrap_or(u32::MAX);
    for (id, owner) in old {
        retire_file(tx, FileId(id), &owner, now).await?;
    }
    Ok(End::Commit(looked_at))
}

async fn retire_file(tx: &mut Conn, id: FileId, owner: &str, now: Timestamp) -> Result<()> {
    let pinned: Option<i32> = query_scalar(IS_PINNED).bind(id.to_string()).bind(owner).fetch_optional(&mut *tx).await?;
    if pinned.is_some() {
        query(PUT_OFF).bind(id.0).bind(now.0).execute(tx).await?;
        return Ok(());
    }
    // Gone if another replica was faster.
    let forgotten: Option<Option<Uuid>> = query_scalar(FORGET_FILE).bind(id.0).fetch_optional(&mut *tx).await?;
    let Some(index) = forgotten else { return Ok(()) };
    query(RETIRE_PARTS).bind(id.0).bind(now.0).execute(&mut *tx).await?;
    query(FORGET_PARTS).bind(id.0).execute(&mut *tx).await?;
    if let Some(index) = index {
        retire_blob(tx, BlobId(index), now).await?;
    }
    Ok(())
}

pub async fn retired_blobs(
    conn: &mut Conn,
    now: Timestamp,
    after: Option<(Timestamp, BlobId)>,
    limit: u32,
) -> Result<Vec<Placed<(Timestamp, BlobId), ()>>> {
    let (delete_after, blob) = after.map_or((i64::MIN, Uuid::nil()), |(at, blob)| (at.0, blob.0));
    let blobs: Vec<(i64, Uuid)> =
        query_as(RETIRED).bind(now.0).bind(delete_after).bind(blob).bind(i64::from(limit)).fetch_all(conn).await?;
    let placed = |(at, blob)| Placed { place: Some((Timestamp(at), BlobId(blob))), read: Ok(()) };
    Ok(blobs.into_iter().map(placed).collect())
}

pub async fn forget_blobs(tx: &mut Conn, blobs: &[BlobId]) -> Result<End<()>> {
    for blob in blobs {
        query(FORGET_BLOB).bind(blob.0).execute(&mut *tx).await?;
    }
    Ok(End::Commit(()))
}

pub async fn orphans(conn: &mut Conn, blobs: &[BlobId]) -> Result<Vec<BlobId>> {
    let mut orphans = Vec::new();
    for blob in blobs {
        let known: Option<i32> = query_scalar(IS_KNOWN).bind(blob.0).fetch_optional(&mut *conn).await?;
        if known.is_none() {
            orphans.push(*blob);
        }
    }
    Ok(orphans)
}

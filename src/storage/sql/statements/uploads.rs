//! Uploads in parts.

use uuid::Uuid;

use super::query::{query, query_as, query_scalar};
use super::upkeep::KEPT;
use super::{Conn, files, request_keys};
use crate::domain::ids::UploadId;
use crate::domain::owner::Owner;
use crate::domain::request_key::RequestKey;
use crate::domain::time::Timestamp;
use crate::domain::upload::{MAX_PARTS, Upload, UploadPart};
use crate::storage::sql::uploads::{UploadPartRow, UploadRow};
use crate::storage::sql::{End, to_i64};
use crate::storage::{NewFile, Result};

const CREATE: &str = "
    INSERT INTO uploads (id, owner, filename, purpose, bytes, created_at, expires_at, file_expires_after, status, parts)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', 0)";

const UPLOAD: &str = "
    SELECT filename, purpose, bytes, created_at, expires_at, status, file_expires_after, file_id
    FROM uploads
    WHERE owner = $1 AND id = $2";

// Locks the upload until the part is there, so that a completion has either the part or its refusal.
const COUNT_PART: &str = "
    UPDATE uploads
    SET parts = parts + 1
    WHERE owner = $1 AND id = $2 AND status = 'pending' AND expires_at > $3 AND parts < $4";
const INSERT_PART: &str = "
    INSERT INTO upload_parts (id, upload_id, blob, bytes, created_at)
    VALUES ($1, $2, $3, $4, $5)";

const PARTS: &str = "
    SELECT upload_parts.id, upload_parts.blob, upload_parts.bytes, upload_parts.created_at
    FROM uploads JOIN upload_parts ON upload_parts.upload_id = uploads.id
    WHERE uploads.owner = $1 AND uploads.id = $2";

const COMPLETE: &str = "
    UPDATE uploads
    SET status = 'completed', file_id = $3
    WHERE owner = $1 AND id = $2 AND status = 'pending'";
const CANCEL: &str = "
    UPDATE uploads
    SET status = 'cancelled'
    WHERE owner = $1 AND id = $2 AND status = 'pending' AND expires_at > $3";

const RETIRE_UNUSED: &str = "
    INSERT INTO retired_blobs (blob, delete_after)
    SELECT blob, $2
    FROM upload_parts
    WHERE upload_id = $1 AND NOT EXISTS (SELECT 1 FROM file_parts WHERE file_parts.blob = upload_parts.blob)
    ON CONFLICT (blob) DO NOTHING";
const FORGET_PARTS: &str = "DELETE FROM upload_parts WHERE upload_id = $1";

// By id among those of a time: two replicas that lock the same uploads in different orders would wait for each other.
const TO_RETIRE: &str = "SELECT id FROM uploads WHERE expires_at <= $1 ORDER BY expires_at, id LIMIT $2";
const FORGET: &str = "DELETE FROM uploads WHERE id = $1";

pub async fn create(tx: &mut Conn, owner: &Owner, upload: &Upload, key: Option<&RequestKey>) -> Result<End<bool>> {
    if !request_keys::claim(tx, owner, key, &upload.id.to_string(), upload.created_at).await? {
        return Ok(End::Rollback(false));
    }
    query(CREATE)
        .bind(upload.id.0)
        .bind(owner.as_str())
        .bind(&upload.filename)
        .bind(upload.purpose.as_str())
        .bind(to_i64(upload.bytes))
        .bind(upload.created_at.0)
        .bind(upload.expires_at.0)
        .bind(upload.file_expires_after.map(|kept| Timestamp(0).plus(kept).0))
        .execute(tx)
        .await?;
    Ok(End::Commit(true))
}

pub async fn upload(conn: &mut Conn, owner: &Owner, id: UploadId) -> Result<Option<UploadRow>> {
    Ok(query_as(UPLOAD).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?)
}

pub async fn add_part(tx: &mut Conn, owner: &Owner, part: &UploadPart, key: Option<&RequestKey>) -> Result<End<bool>> {
    if !request_keys::claim(tx, owner, key, &part.id.to_string(), part.created_at).await? {
        return Ok(End::Rollback(false));
    }
    let counted = query(COUNT_PART)
        .bind(owner.as_str())
        .bind(part.upload.0)
        .bind(part.created_at.0)
        .bind(i64::from(MAX_PARTS))
        .execute(&mut *tx)
        .await?;
    if counted.rows_affected() != 1 {
        return Ok(End::Rollback(false));
    }
    query(INSERT_PART)
        .bind(part.id.0)
        .bind(part.upload.0)
        .bind(part.part.blob.0)
        .bind(to_i64(part.part.bytes))
        .bind(part.created_at.0)
        .execute(tx)
        .await?;
    Ok(End::Commit(true))
}

pub async fn parts(conn: &mut Conn, owner: &Owner, id: UploadId) -> Result<Vec<UploadPartRow>> {
    Ok(query_as(PARTS).bind(owner.as_str()).bind(id.0).fetch_all(conn).await?)
}

/// `report`: what intake found in a batch input file, as JSON.
pub async fn complete(
    tx: &mut Conn,
    owner: &Owner,
    id: UploadId,
    new: &NewFile,
    report: Option<&str>,
    now: Timestamp,
) -> Result<End<bool>> {
    if !request_keys::claim(tx, owner, new.key.as_ref(), &id.to_string(), now).await? {
        return Ok(End::Rollback(false));
    }
    let completed = query(COMPLETE).bind(owner.as_str()).bind(id.0).bind(new.file.id.0).execute(&mut *tx).await?;
    if completed.rows_affected() != 1 {
        return Ok(End::Rollback(false));
    }
    files::insert_whole(tx, owner, new, report).await?;
    release_parts(tx, id, now).await?;
    Ok(End::Commit(true))
}

pub async fn cancel(tx: &mut Conn, owner: &Owner, id: UploadId, now: Timestamp) -> Result<End<bool>> {
    let cancelled = query(CANCEL).bind(owner.as_str()).bind(id.0).bind(now.0).execute(&mut *tx).await?;
    if cancelled.rows_affected() != 1 {
        return Ok(End::Rollback(false));
    }
    release_parts(tx, id, now).await?;
    Ok(End::Commit(true))
}

pub async fn retire(tx: &mut Conn, now: Timestamp, limit: u32) -> Result<End<u32>> {
    // An hour later than it could: a completion that began in time is through, and one that is repeated finds its file.
    let old: Vec<Uuid> =
        query_scalar(TO_RETIRE).bind(now.minus(KEPT).0).bind(i64::from(limit)).fetch_all(&mut *tx).await?;
    let looked_at = u32::try_from(old.len()).unwrap_or(u32::MAX);
    for id in old {
        // None if another replica was faster.
        if query(FORGET).bind(id).execute(&mut *tx).await?.rows_affected() == 1 {
            release_parts(tx, UploadId(id), now).await?;
        }
    }
    Ok(End::Commit(looked_at))
}

/// Forgets the parts of an upload. Blobs that are in no file are retired, and kept for a completion that reads them.
async fn release_parts(tx: &mut Conn, id: UploadId, now: Timestamp) -> Result<()> {
    query(RETIRE_UNUSED).bind(id.0).bind(now.plus(KEPT).0).execute(&mut *tx).await?;
    query(FORGET_PARTS).bind(id.0).execute(&mut *tx).await?;
    Ok(())
}

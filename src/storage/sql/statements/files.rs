//! Files and their parts.

use roaring::RoaringBitmap;
use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::query::{query, query_as, query_scalar};
use super::{Conn, Row, request_keys};
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BlobId, FileId};
use crate::domain::owner::Owner;
use crate::domain::page::Order;
use crate::domain::time::Timestamp;
use crate::storage::sql::files::{FileRow, file_columns};
use crate::storage::sql::ledger::encode;
use crate::storage::sql::readable::{Placed, read_row};
use crate::storage::sql::{End, to_i64, to_u64};
use crate::storage::{NewFile, Result};

/// What an owner can see: neither deleted nor expired.
macro_rules! visible_at {
    ($now:literal) => {
        concat!("deleted_at IS NULL AND (expires_at IS NULL OR expires_at > ", $now, ")")
    };
}

pub(super) use visible_at;

const INSERT_FILE: &str = "
    INSERT INTO files (id, owner, purpose, filename, bytes, created_at, expires_at, retired_at, index_blob, report)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9)";

const INSERT_PART: &str = "
    INSERT INTO file_parts (file_id, no, blob, bytes, rows)
    VALUES ($1, $2, $3, $4, $5)";

const INSERT_PARTS: &str = "INSERT INTO file_parts (file_id, no, blob, bytes) ";
/// Parts of one statement: as many as make its round trip cheap, and few beside the values a statement can have.
const TOGETHER: usize = 256;

const FILE: &str =
    concat!("SELECT ", file_columns!(), " FROM files WHERE owner = $1 AND id = $2 AND ", visible_at!("$3"));

/// One that was deleted or has expired after `$3` too.
const INPUT_FILE: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM files WHERE owner = $1 AND id = $2 AND (deleted_at IS NULL OR deleted_at > $3)",
    " AND (expires_at IS NULL OR expires_at > $3)"
);

/// Deleted files too: a page can go on after one that was deleted while the list was read.
const CREATED_AT: &str = "SELECT created_at FROM files WHERE owner = $1 AND id = $2";

const NEWER_FIRST: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM files WHERE owner = $1 AND (created_at, id) < ($2, $3) AND purpose = COALESCE($4, purpose) AND ",
    visible_at!("$5"),
    " ORDER BY created_at DESC, id DESC LIMIT $6"
);

const OLDER_FIRST: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM files WHERE owner = $1 AND (created_at, id) > ($2, $3) AND purpose = COALESCE($4, purpose) AND ",
    visible_at!("$5"),
    " ORDER BY created_at, id LIMIT $6"
);

const PARTS: &str = "
    SELECT file_parts.blob, file_parts.bytes
    FROM files JOIN file_parts ON file_parts.file_id = files.id
    WHERE files.owner = $1 AND files.id = $2
    ORDER BY file_parts.no";
const REPORT: &str = "SELECT report FROM files WHERE owner = $1 AND id = $2";
const INDEX: &str = "SELECT index_blob FROM files WHERE owner = $1 AND id = $2 AND index_blob IS NOT NULL";

const DELETE: &str =
    concat!("UPDATE files SET deleted_at = $3, retired_at = $3 WHERE owner = $1 AND id = $2 AND ", visible_at!("$3"));

/// `report`: what intake found in a batch input file, as JSON.
pub async fn create(tx: &mut Conn, owner: &Owner, new: &NewFile, report: Option<&str>) -> Result<End<bool>> {
    if !request_keys::claim(tx, owner, new.key.as_ref(), &new.file.id.to_string(), new.file.created_at).await? {
        return Ok(End::Rollback(false));
    }
    insert_whole(tx, owner, new, report).await?;
    Ok(End::Commit(true))
}

/// A file with its parts.
pub async fn insert_whole(tx: &mut Conn, owner: &Owner, new: &NewFile, report: Option<&str>) -> Result<()> {
    let index = new.indexed.as_ref().map(|indexed| indexed.index);
    insert(tx, owner, &new.file, index, report).await?;
    for (first, together) in (0_i64..).step_by(TOGETHER).zip(new.parts.chunks(TOGETHER)) {
        insert_parts(tx, new.file.id, first, together).await?;
    }
    Ok(())
}

/// One round trip for all of them: an upload may have thousands.
async fn insert_parts(tx: &mut Conn, file: FileId, first: i64, parts: &[FilePart]) -> Result<()> {
    let mut query = QueryBuilder::new(INSERT_PARTS);
    query.push_values((first..).zip(parts), |mut values, (no, part)| {
        values.push_bind(file.0).push_bind(no).push_bind(part.blob.0).push_bind(to_i64(part.bytes));
    });
    // Its text differs with how many there are, so that it is not worth keeping prepared.
    query.build().persistent(false).execute(tx).await?;
    Ok(())
}

/// `index` and `report` are those of a batch input file.
pub async fn insert(
    tx: &mut Conn,
    owner: &Owner,
    file: &File,
    index: Option<BlobId>,
    report: Option<&str>,
) -> Result<()> {
    query(INSERT_FILE)
        .bind(file.id.0)
        .bind(owner.as_str())
        .bind(file.purpose.as_str())
        .bind(&file.filename)
        .bind(to_i64(file.bytes))
        .bind(file.created_at.0)
        .bind(file.expires_at.map(|at| at.0))
        .bind(index.map(|index| index.0))
        .bind(report)
        .execute(tx)
        .await?;
    Ok(())
}

/// `rows`: the rows that a part of an output or error file answers.
pub async fn insert_part(
    tx: &mut Conn,
    file: FileId,
    no: i64,
    part: FilePart,
    rows: Option<&RoaringBitmap>,
) -> Result<()> {
    query(INSERT_PART)
        .bind(file.0)
        .bind(no)
        .bind(part.blob.0)
        .bind(to_i64(part.bytes))
        .bind(rows.map(encode))
        .execute(tx)
        .await?;
    Ok(())
}

pub async fn file(conn: &mut Conn, owner: &Owner, id: FileId, now: Timestamp) -> Result<Option<FileRow>> {
    Ok(query_as(FILE).bind(owner.as_str()).bind(id.0).bind(now.0).fetch_optional(conn).await?)
}

pub async fn input_file(conn: &mut Conn, owner: &Owner, id: FileId, created_at: Timestamp) -> Result<Option<FileRow>> {
    Ok(query_as(INPUT_FILE).bind(owner.as_str()).bind(id.0).bind(created_at.0).fetch_optional(conn).await?)
}

pub async fn created_at(conn: &mut Conn, owner: &Owner, id: FileId) -> Result<Option<i64>> {
    Ok(query_scalar(CREATED_AT).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?)
}

/// The first `limit` files behind `after`: a creation time and an id.
pub async fn page(
    conn: &mut Conn,
    owner: &Owner,
    (order, after, limit): (Order, (i64, Uuid), i64),
    purpose: Option<Purpose>,
    now: Timestamp,
) -> Result<Vec<Placed<(i64, Uuid), File>>> {
    let statement = match order {
        Order::Descending => NEWER_FIRST,
        Order::Ascending => OLDER_FIRST,
    };
    let rows = query(statement)
        .bind(owner.as_str())
        .bind(after.0)
        .bind(after.1)
        .bind(purpose.map(Purpose::as_str))
        .bind(now.0)
        .bind(limit)
        .fetch_all(conn)
        .await?;
    Ok(rows.iter().map(placed).collect())
}

fn placed(row: &Row) -> Placed<(i64, Uuid), File> {
    let id: Option<Uuid> = row.try_get("id").ok();
    let place = id.and_then(|id| Some((row.try_get("created_at").ok()?, id)));
    let name = id.map(|id| FileId(id).to_string());
    Placed { place, read: read_row::<_, FileRow, File>("files", name, row) }
}

pub async fn parts(conn: &mut Conn, owner: &Owner, id: FileId) -> Result<Vec<FilePart>> {
    let rows: Vec<(Uuid, i64)> = query_as(PARTS).bind(owner.as_str()).bind(id.0).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(blob, bytes)| FilePart { blob: BlobId(blob), bytes: to_u64(bytes) }).collect())
}

pub async fn report(conn: &mut Conn, owner: &Owner, id: FileId) -> Result<Option<String>> {
    let report: Option<Option<String>> =
        query_scalar(REPORT).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?;
    Ok(report.flatten())
}

pub async fn index(conn: &mut Conn, owner: &Owner, id: FileId) -> Result<Option<BlobId>> {
    let index: Option<Uuid> = query_scalar(INDEX).bind(owner.as_str()).bind(id.0).fetch_optional(conn).await?;
    Ok(index.map(BlobId))
}

pub async fn delete(tx: &mut Conn, owner: &Owner, id: FileId, now: Timestamp) -> Result<End<bool>> {
    let deleted = query(DELETE).bind(owner.as_str()).bind(id.0).bind(now.0).execute(tx).await?;
    Ok(End::Commit(deleted.rows_affected() == 1))
}

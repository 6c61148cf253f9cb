//! Files and their parts.

use async_trait::async_trait;
use sqlx::Row;
use uuid::Uuid;

use super::dialect::{query, query_as, query_scalar};
use super::readable::{Gathered, Placed, read_row};
use super::{End, SqlStorage, corrupt, in_write, on_reader, to_i64, to_u64};
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BlobId, FileId};
use crate::domain::page::{Order, Page, PageRequest};
use crate::domain::report::Report;
use crate::domain::time::Timestamp;
use crate::storage::{FileStore, NewFile, Result, StorageError};

macro_rules! file_columns {
    () => {
        "id, purpose, filename, bytes, created_at, expires_at"
    };
}

/// What an owner can see: neither deleted nor expired.
macro_rules! visible_at {
    ($now:literal) => {
        concat!("deleted_at IS NULL AND (expires_at IS NULL OR expires_at > ", $now, ")")
    };
}

pub(super) use visible_at;

#[derive(sqlx::FromRow)]
struct FileRow {
    id: Uuid,
    purpose: String,
    filename: String,
    bytes: i64,
    created_at: i64,
    expires_at: Option<i64>,
}

impl TryFrom<FileRow> for File {
    type Error = StorageError;

    fn try_from(row: FileRow) -> Result<Self> {
        Ok(Self {
            id: FileId(row.id),
            purpose: Purpose::parse(&row.purpose).ok_or_else(|| corrupt("files", "purpose", FileId(row.id)))?,
            filename: row.filename,
            bytes: to_u64(row.bytes),
            created_at: Timestamp(row.created_at),
            expires_at: row.expires_at.map(Timestamp),
        })
    }
}

pub(super) const INSERT_FILE: &str = "
    INSERT INTO files (id, purpose, filename, bytes, created_at, expires_at, retired_at, index_blob, report)
    VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8)";

pub(super) const INSERT_PART: &str = "
    INSERT INTO file_parts (file_id, no, blob, bytes, rows)
    VALUES ($1, $2, $3, $4, $5)";

const FILE: &str = concat!("SELECT ", file_columns!(), " FROM files WHERE id = $1 AND ", visible_at!("$2"));

/// Deleted files too: a page can go on after one that was deleted while the list was read.
const CREATED_AT: &str = "SELECT created_at FROM files WHERE id = $1";

const NEWER_FIRST: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM files WHERE (created_at, id) < ($1, $2) AND purpose = COALESCE($3, purpose) AND ",
    visible_at!("$4"),
    " ORDER BY created_at DESC, id DESC LIMIT $5"
);

const OLDER_FIRST: &str = concat!(
    "SELECT ",
    file_columns!(),
    " FROM files WHERE (created_at, id) > ($1, $2) AND purpose = COALESCE($3, purpose) AND ",
    visible_at!("$4"),
    " ORDER BY created_at, id LIMIT $5"
);

const PARTS: &str = "SELECT blob, bytes FROM file_parts WHERE file_id = $1 ORDER BY no";
const REPORT: &str = "SELECT report FROM files WHERE id = $1";

const DELETE: &str = concat!("UPDATE files SET deleted_at = $2, retired_at = $2 WHERE id = $1 AND ", visible_at!("$2"));

#[async_trait]
impl FileStore for SqlStorage {
    async fn create_file(&self, new: &NewFile) -> Result<()> {
        let file = &new.file;
        let report = new.indexed.as_ref().map(|indexed| json(&indexed.report));
        in_write!(self.db, tx => {
            query(INSERT_FILE)
                .bind(file.id.0)
                .bind(file.purpose.as_str())
                .bind(&file.filename)
                .bind(to_i64(file.bytes))
                .bind(file.created_at.0)
                .bind(file.expires_at.map(|at| at.0))
                .bind(new.indexed.as_ref().map(|indexed| indexed.index.0))
                .bind(&report)
                .execute(&mut *tx)
                .await?;
            for (no, part) in (0_i64..).zip(&new.parts) {
                query(INSERT_PART)
                    .bind(file.id.0)
                    .bind(no)
                    .bind(part.blob.0)
                    .bind(to_i64(part.bytes))
                    .bind(None::<Vec<u8>>)
                    .execute(&mut *tx)
                    .await?;
            }
            End::Commit(())
        })
    }

    async fn file(&self, id: FileId, now: Timestamp) -> Result<Option<File>> {
        let row: Option<FileRow> = on_reader!(self.db, conn => {
            Ok(query_as(FILE).bind(id.0).bind(now.0).fetch_optional(&mut *conn).await?)
        })?;
        row.map(File::try_from).transpose()
    }

    async fn files(&self, page: &PageRequest<FileId>, purpose: Option<Purpose>, now: Timestamp) -> Result<Page<File>> {
        let Some(start) = self.start_of(page).await? else { return Ok(Page::empty()) };
        let statement = match page.order {
            Order::Descending => NEWER_FIRST,
            Order::Ascending => OLDER_FIRST,
        };
        let mut gathered = Gathered::with_limit(page.limit);
        let mut next = Some(start);
        while let Some((created_at, id)) = next {
            let rows: Vec<Placed<(i64, Uuid), File>> = on_reader!(self.db, conn => {
                let rows = query(statement)
                    .bind(created_at)
                    .bind(id)
                    .bind(purpose.map(Purpose::as_str))
                    .bind(now.0)
                    .bind(gathered.missing())
                    .fetch_all(&mut *conn)
                    .await?;
                let placed = |row| {
                    let id: Option<Uuid> = Row::try_get(row, "id").ok();
                    let place = id.and_then(|id| Some((Row::try_get(row, "created_at").ok()?, id)));
                    let name = id.map(|id| FileId(id).to_string());
                    Placed { place, read: read_row::<_, FileRow, File>("files", name, row) }
                };
                Ok(rows.iter().map(placed).collect())
            })?;
            next = gathered.take(rows);
        }
        Ok(gathered.page())
    }

    async fn file_parts(&self, id: FileId) -> Result<Vec<FilePart>> {
        let rows: Vec<(Uuid, i64)> = on_reader!(self.db, conn => {
            Ok(query_as(PARTS).bind(id.0).fetch_all(&mut *conn).await?)
        })?;
        Ok(rows.into_iter().map(|(blob, bytes)| FilePart { blob: BlobId(blob), bytes: to_u64(bytes) }).collect())
    }

    async fn file_report(&self, id: FileId) -> Result<Option<Report>> {
        let report: Option<Option<String>> = on_reader!(self.db, conn => {
            Ok(query_scalar(REPORT).bind(id.0).fetch_optional(&mut *conn).await?)
        })?;
        let parsed = report.flatten().map(|text| serde_json::from_str(&text));
        parsed.transpose().map_err(|_| corrupt("files", "report", id))
    }

    async fn delete_file(&self, id: FileId, now: Timestamp) -> Result<bool> {
        in_write!(self.db, tx => {
            let deleted = query(DELETE).bind(id.0).bind(now.0).execute(&mut *tx).await?.rows_affected();
            End::Commit(deleted == 1)
        })
    }
}

impl SqlStorage {
    /// The sort key a page starts after; `None` if the file it names never existed.
    async fn start_of(&self, page: &PageRequest<FileId>) -> Result<Option<(i64, Uuid)>> {
        match page.after {
            None if page.order == Order::Descending => Ok(Some((i64::MAX, Uuid::max()))),
            None => Ok(Some((i64::MIN, Uuid::nil()))),
            Some(after) => {
                let created_at: Option<i64> = on_reader!(self.db, conn => {
                    Ok(query_scalar(CREATED_AT).bind(after.0).fetch_optional(&mut *conn).await?)
                })?;
                Ok(created_at.map(|at| (at, after.0)))
            }
        }
    }
}

/// JSON of a value that has no map with keys other than strings, and so always has one.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain values serialise")
}

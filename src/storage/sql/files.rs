//! Files and their parts.

use async_trait::async_trait;
use uuid::Uuid;

use super::readable::Gathered;
use super::{SqlStorage, corrupt, in_write, on_reader, to_u64};
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::page::{Order, Page, PageRequest};
use crate::domain::report::Report;
use crate::domain::time::Timestamp;
use crate::storage::{FileStore, NewFile, Result, StorageError};

/// The columns of [`FileRow`].
macro_rules! file_columns {
    () => {
        "id, purpose, filename, bytes, created_at, expires_at"
    };
}

pub(super) use file_columns;

#[derive(sqlx::FromRow)]
pub(super) struct FileRow {
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

#[async_trait]
impl FileStore for SqlStorage {
    async fn create_file(&self, owner: &Owner, new: &NewFile) -> Result<bool> {
        let report = new.indexed.as_ref().map(|indexed| json(&indexed.report));
        in_write!(self.db, files::create(owner, new, report.as_deref()))
    }

    async fn file(&self, owner: &Owner, id: FileId, now: Timestamp) -> Result<Option<File>> {
        let row = on_reader!(self.db, files::file(owner, id, now))?;
        row.map(File::try_from).transpose()
    }

    async fn input_file(&self, owner: &Owner, id: FileId, created_at: Timestamp) -> Result<Option<File>> {
        let row = on_reader!(self.db, files::input_file(owner, id, created_at))?;
        row.map(File::try_from).transpose()
    }

    async fn files(
        &self,
        owner: &Owner,
        page: &PageRequest<FileId>,
        purpose: Option<Purpose>,
        now: Timestamp,
    ) -> Result<Page<File>> {
        let Some(start) = self.start_of(owner, page).await? else { return Ok(Page::empty()) };
        let mut gathered = Gathered::with_limit(page.limit);
        let mut next = Some(start);
        while let Some(after) = next {
            let rows = on_reader!(self.db, files::page(owner, (page.order, after, gathered.missing()), purpose, now))?;
            next = gathered.take(rows);
        }
        Ok(gathered.page())
    }

    async fn file_parts(&self, owner: &Owner, id: FileId) -> Result<Vec<FilePart>> {
        on_reader!(self.db, files::parts(owner, id))
    }

    async fn file_report(&self, owner: &Owner, id: FileId) -> Result<Option<Report>> {
        let report = on_reader!(self.db, files::report(owner, id))?;
        let parsed = report.map(|text| serde_json::from_str(&text));
        parsed.transpose().map_err(|_| corrupt("files", "report", id))
    }

    async fn delete_file(&self, owner: &Owner, id: FileId, now: Timestamp) -> Result<bool> {
        in_write!(self.db, files::delete(owner, id, now))
    }
}

impl SqlStorage {
    /// The sort key a page starts after; `None` if the owner never had the file it names.
    async fn start_of(&self, owner: &Owner, page: &PageRequest<FileId>) -> Result<Option<(i64, Uuid)>> {
        match page.after {
            None if page.order == Order::Descending => Ok(Some((i64::MAX, Uuid::max()))),
            None => Ok(Some((i64::MIN, Uuid::nil()))),
            Some(after) => {
                let created_at = on_reader!(self.db, files::created_at(owner, after))?;
                Ok(created_at.map(|at| (at, after.0)))
            }
        }
    }
}

/// JSON of a value that has no map with keys other than strings, and so always has one.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain values serialise")
}

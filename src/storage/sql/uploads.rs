//! Uploads in parts.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::files::json;
use super::{SqlStorage, corrupt, in_write, on_reader, to_u64};
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BlobId, FileId, UploadId, UploadPartId};
use crate::domain::owner::Owner;
use crate::domain::request_key::RequestKey;
use crate::domain::time::Timestamp;
use crate::domain::upload::{Upload, UploadPart, UploadStatus};
use crate::storage::{NewFile, Result, UploadStore};

#[derive(sqlx::FromRow)]
pub(super) struct UploadRow {
    filename: String,
    purpose: String,
    bytes: i64,
    created_at: i64,
    expires_at: i64,
    status: String,
    file_expires_after: Option<i64>,
    file_id: Option<Uuid>,
}

impl UploadRow {
    fn read(self, id: UploadId, file: Option<File>, now: Timestamp) -> Result<Upload> {
        let status = UploadStatus::parse(&self.status).ok_or_else(|| corrupt("uploads", "status", id))?;
        let is_over = status == UploadStatus::Pending && self.expires_at <= now.0;
        Ok(Upload {
            id,
            filename: self.filename,
            purpose: Purpose::parse(&self.purpose).ok_or_else(|| corrupt("uploads", "purpose", id))?,
            bytes: to_u64(self.bytes),
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
            status: if is_over { UploadStatus::Expired } else { status },
            file_expires_after: self.file_expires_after.map(|millis| Duration::from_millis(to_u64(millis))),
            file,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct UploadPartRow {
    id: Uuid,
    blob: Uuid,
    bytes: i64,
    created_at: i64,
}

impl UploadPartRow {
    fn of(self, upload: UploadId) -> UploadPart {
        let part = FilePart { blob: BlobId(self.blob), bytes: to_u64(self.bytes) };
        UploadPart { id: UploadPartId(self.id), upload, part, created_at: Timestamp(self.created_at) }
    }
}

#[async_trait]
impl UploadStore for SqlStorage {
    async fn create_upload(&self, owner: &Owner, upload: &Upload, key: Option<&RequestKey>) -> Result<bool> {
        in_write!(self.db, uploads::create(owner, upload, key))
    }

    async fn upload(&self, owner: &Owner, id: UploadId, now: Timestamp) -> Result<Option<Upload>> {
        let Some(row) = on_reader!(self.db, uploads::upload(owner, id))? else { return Ok(None) };
        let file = match row.file_id {
            None => None,
            Some(file) => on_reader!(self.db, files::file(owner, FileId(file), now))?,
        };
        row.read(id, file.map(File::try_from).transpose()?, now).map(Some)
    }

    async fn add_upload_part(&self, owner: &Owner, part: &UploadPart, key: Option<&RequestKey>) -> Result<bool> {
        in_write!(self.db, uploads::add_part(owner, part, key))
    }

    async fn upload_parts(&self, owner: &Owner, id: UploadId) -> Result<Vec<UploadPart>> {
        let rows = on_reader!(self.db, uploads::parts(owner, id))?;
        Ok(rows.into_iter().map(|row| row.of(id)).collect())
    }

    async fn complete_upload(&self, owner: &Owner, id: UploadId, new: &NewFile, now: Timestamp) -> Result<bool> {
        let report = new.indexed.as_ref().map(|indexed| json(&indexed.report));
        in_write!(self.db, uploads::complete(owner, id, new, report.as_deref(), now))
    }

    async fn cancel_upload(&self, owner: &Owner, id: UploadId, now: Timestamp) -> Result<bool> {
        in_write!(self.db, uploads::cancel(owner, id, now))
    }
}

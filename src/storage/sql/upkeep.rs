//! Merging parts, and letting go of files and blobs.

use async_trait::async_trait;

use super::{SqlStorage, in_write, on_reader};
use crate::domain::file::FilePart;
use crate::domain::ids::{BlobId, FileId};
use crate::domain::time::Timestamp;
use crate::storage::{Result, TieredPart, Upkeep, WorkPage};

#[async_trait]
impl Upkeep for SqlStorage {
    async fn tiered_parts(&self, id: FileId) -> Result<Vec<TieredPart>> {
        on_reader!(self.db, upkeep::tiered_parts(id))
    }

    async fn merge_parts(&self, id: FileId, parts: &[TieredPart], merged: FilePart, now: Timestamp) -> Result<bool> {
        if parts.is_empty() {
            return Ok(false);
        }
        in_write!(self.db, upkeep::merge_parts(id, parts, merged, now))
    }

    async fn retire_files(&self, now: Timestamp, limit: u32) -> Result<u32> {
        in_write!(self.db, upkeep::retire_files(now, limit))
    }

    async fn retire_uploads(&self, now: Timestamp, limit: u32) -> Result<u32> {
        in_write!(self.db, uploads::retire(now, limit))
    }

    async fn forget_keys(&self, now: Timestamp, limit: u32) -> Result<u64> {
        in_write!(self.db, request_keys::forget(now, limit))
    }

    async fn retired_blobs(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, BlobId)>,
        limit: u32,
    ) -> Result<WorkPage<BlobId, ()>> {
        Ok(WorkPage::of(on_reader!(self.db, upkeep::retired_blobs(now, after, limit))?, limit))
    }

    async fn forget_blobs(&self, blobs: &[BlobId]) -> Result<()> {
        in_write!(self.db, upkeep::forget_blobs(blobs))
    }

    async fn orphans(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>> {
        on_reader!(self.db, upkeep::orphans(blobs))
    }
}

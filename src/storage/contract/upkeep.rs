//! What the program itself does to files and blobs.

use async_trait::async_trait;

use super::{Result, WorkPage};
use crate::domain::file::FilePart;
use crate::domain::ids::{BlobId, FileId};
use crate::domain::time::Timestamp;

/// A part, and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TieredPart {
    /// Its number within the file; they rise, with gaps where parts were merged.
    pub no: i64,
    /// The bytes.
    pub part: FilePart,
    /// 0 as recorded; one more than the parts that were merged into it.
    pub tier: i64,
}

/// Keeping files in few parts, and letting go of what nobody can see any more. Everything here works in bounded steps
/// and may be done by several replicas at once.
#[async_trait]
pub trait Upkeep {
    /// The parts of a file in order, with their tiers.
    async fn tiered_parts(&self, id: FileId) -> Result<Vec<TieredPart>>;

    /// Replaces neighbouring parts of a file by one with the same bytes, and retires their blobs. False, and nothing is
    /// done, if the parts are not there any more as they were.
    async fn merge_parts(&self, id: FileId, parts: &[TieredPart], merged: FilePart, now: Timestamp) -> Result<bool>;

    /// Forgets up to `limit` files that were deleted or have expired an hour ago or longer, and retires their blobs.
    /// Those that a batch still runs are left for later. Returns how many were looked at.
    async fn retire_files(&self, now: Timestamp, limit: u32) -> Result<u32>;

    /// Forgets up to `limit` uploads that ended an hour ago or longer, or would have, and retires the blobs of parts
    /// that have become no file. Returns how many were looked at.
    async fn retire_uploads(&self, now: Timestamp, limit: u32) -> Result<u32>;

    /// Forgets up to `limit` idempotency keys whose time is over. Returns how many.
    async fn forget_keys(&self, now: Timestamp, limit: u32) -> Result<u64>;

    /// Retired blobs that nobody can be reading any more, oldest first, from behind `after`.
    async fn retired_blobs(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, BlobId)>,
        limit: u32,
    ) -> Result<WorkPage<BlobId, ()>>;

    /// Forgets retired blobs, which are gone from the blob store.
    async fn forget_blobs(&self, blobs: &[BlobId]) -> Result<()>;

    /// Those of `blobs` that nothing refers to and that were not retired.
    async fn orphans(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>>;
}

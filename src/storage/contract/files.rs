//! What is kept of files.

use async_trait::async_trait;

use super::Result;
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BlobId, FileId};
use crate::domain::owner::Owner;
use crate::domain::page::{Page, PageRequest};
use crate::domain::report::Report;
use crate::domain::request_key::RequestKey;
use crate::domain::time::Timestamp;

/// A file to be kept, with its bytes already in the blob store.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// The file as its owner will see it.
    pub file: File,
    /// Its bytes.
    pub parts: Vec<FilePart>,
    /// What intake made of a batch input file.
    pub indexed: Option<Indexed>,
    /// The key of the request that creates it.
    pub key: Option<RequestKey>,
}

/// What intake made of a batch input file.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// The blob of the row index.
    pub index: BlobId,
    /// What was found.
    pub report: Report,
}

/// Files and their parts.
#[async_trait]
pub trait FileStore {
    /// Keeps a file of the owner, together with its key. It can be read as soon as this returns. False, and nothing is
    /// done, if the owner has used the key before.
    async fn create_file(&self, owner: &Owner, new: &NewFile) -> Result<bool>;

    /// A file of the owner that is neither deleted nor expired.
    async fn file(&self, owner: &Owner, id: FileId, now: Timestamp) -> Result<Option<File>>;

    /// The input of a batch of the owner that was created at this time: the file, if it was there then. It may be gone
    /// since.
    async fn input_file(&self, owner: &Owner, id: FileId, created_at: Timestamp) -> Result<Option<File>>;

    /// The owner's files that are neither deleted nor expired, by creation time. Rows that cannot be read are left out,
    /// as if they were not there.
    async fn files(
        &self,
        owner: &Owner,
        page: &PageRequest<FileId>,
        purpose: Option<Purpose>,
        now: Timestamp,
    ) -> Result<Page<File>>;

    /// The parts of a file of the owner in order, deleted or not.
    async fn file_parts(&self, owner: &Owner, id: FileId) -> Result<Vec<FilePart>>;

    /// What intake found in a batch input file of the owner; `None` for other files.
    async fn file_report(&self, owner: &Owner, id: FileId) -> Result<Option<Report>>;

    /// Deletes a file of the owner. False if it was not there. Batches that run it go on.
    async fn delete_file(&self, owner: &Owner, id: FileId, now: Timestamp) -> Result<bool>;
}

//! What is kept of files.

use async_trait::async_trait;

use super::Result;
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BlobId, FileId};
use crate::domain::page::{Page, PageRequest};
use crate::domain::report::Report;
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
    /// Keeps a file. It can be read as soon as this returns.
    async fn create_file(&self, new: &NewFile) -> Result<()>;

    /// A file that is neither deleted nor expired.
    async fn file(&self, id: FileId, now: Timestamp) -> Result<Option<File>>;

    /// Files that are neither deleted nor expired, by creation time. Rows that cannot be read are left out, as if they
    /// were not there.
    async fn files(&self, page: &PageRequest<FileId>, purpose: Option<Purpose>, now: Timestamp) -> Result<Page<File>>;

    /// The parts of a file in order, deleted or not.
    async fn file_parts(&self, id: FileId) -> Result<Vec<FilePart>>;

    /// What intake found in a batch input file; `None` for other files.
    async fn file_report(&self, id: FileId) -> Result<Option<Report>>;

    /// Deletes a file for its owner. False if it was not there. Batches that run it go on.
    async fn delete_file(&self, id: FileId, now: Timestamp) -> Result<bool>;
}

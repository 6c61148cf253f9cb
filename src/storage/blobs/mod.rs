//! The blob store: immutable objects under fresh ids.

mod file_bytes;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};

pub use file_bytes::FileBytes;
pub use writer::BlobWriter;

use crate::domain::ids::BlobId;

/// Why the blob store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store refused, or cannot be reached.
    #[error("the blob store failed")]
    Store(#[from] object_store::Error),
    /// The url names no store this program can use.
    #[error("--blob-url {0} is not supported: use file:///a/shared/directory, or leave it out for --data-dir")]
    UnknownUrl(String),
    /// The directory of a local store cannot be made.
    #[error("the blob directory {path} cannot be made")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A blob store. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
}

impl Blobs {
    /// A store in a local directory, which is made if it is not there. What is written is synced to disk.
    pub fn local(directory: &Path) -> Result<Self, BlobError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| BlobError::Directory { path: directory.display().to_string(), source })?;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// The store a `--blob-url` names.
    pub fn at_url(url: &str) -> Result<Self, BlobError> {
        let parsed = url::Url::parse(url).map_err(|_| BlobError::UnknownUrl(url.to_owned()))?;
        match parsed.to_file_path() {
            Ok(directory) if parsed.scheme() == "file" => Self::local(&directory),
            _ => Err(BlobError::UnknownUrl(url.to_owned())),
        }
    }

    /// Keeps `bytes` as a blob. They are durable when this returns.
    pub async fn put(&self, bytes: impl Into<PutPayload>) -> Result<BlobId, BlobError> {
        let id = BlobId::new();
        self.store.put(&path(id), bytes.into()).await?;
        Ok(id)
    }

    /// A blob to be written piece by piece.
    pub async fn writer(&self) -> Result<BlobWriter, BlobError> {
        let id = BlobId::new();
        Ok(BlobWriter::new(id, self.store.put_multipart(&path(id)).await?))
    }

    /// Reads a range of a blob.
    pub async fn read(&self, id: BlobId, range: Range<u64>) -> Result<Bytes, BlobError> {
        Ok(self.store.get_range(&path(id), range).await?)
    }

    /// Removes a blob that nothing refers to.
    pub async fn delete(&self, id: BlobId) -> Result<(), BlobError> {
        Ok(self.store.delete(&path(id)).await?)
    }

    /// Whether the store answers.
    pub async fn check(&self) -> Result<(), BlobError> {
        match self.store.head(&ObjectPath::from("probe")).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Spread over directories by the random end of the id; its start is a clock reading, the same for many.
fn path(id: BlobId) -> ObjectPath {
    let name = id.to_string();
    ObjectPath::from_iter([&name[name.len() - 2..], name.as_str()])
}

//! The blob store: immutable objects under fresh ids.

mod file_bytes;
mod marks;
mod open;
mod writer;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use file_bytes::FileBytes;
pub use writer::BlobWriter;

use crate::causes::causes;
use crate::domain::ids::BlobId;
use crate::domain::time::Timestamp;

/// Why the blob store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store refused, or cannot be reached.
    #[error("the blob store failed")]
    Store(#[source] object_store::Error),
    /// The disk of a local store is full. Asking again helps once there is room.
    #[error("the blob store's disk is full: make room, and work goes on by itself")]
    Full(#[source] object_store::Error),
    /// The url names no store this program can use.
    #[error(
        "--blob-url {0} is not supported: use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or \
         file:///a/shared/directory"
    )]
    UnknownUrl(String),
    /// The url has a user name or a password in it.
    #[error("--blob-url {0} must not have a user name or a password in it: they are taken from the environment")]
    Credentials(String),
    /// What the store's client needs to know is missing or wrong.
    #[error("--blob-url {url} cannot be used with what the environment says of it")]
    Settings {
        /// The url.
        url: String,
        /// Why.
        source: object_store::Error,
    },
    /// The directory of a local store cannot be made.
    #[error("the blob directory {path} cannot be made")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A blob has fewer bytes than were written to it, or than its index says.
    #[error("the blob {id} is shorter than it was written")]
    Short {
        /// The blob.
        id: BlobId,
    },
    /// The store is not the deployment's any more.
    #[error(
        "the blob store has lost the mark of this deployment: its directory was deleted or moved away, its bucket was \
         emptied, or another deployment has taken it over with --adopt-blobs"
    )]
    Unmarked,
    /// What a writer that died left behind cannot be removed.
    #[error("an unfinished blob cannot be removed")]
    Unfinished(#[source] io::Error),
}

impl BlobError {
    /// Whether there is no such blob, or no such range of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }) | Self::Short { .. })
    }
}

impl From<object_store::Error> for BlobError {
    fn from(error: object_store::Error) -> Self {
        let is_full = causes(&error)
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|io| io.kind() == io::ErrorKind::StorageFull);
        if is_full { Self::Full(error) } else { Self::Store(error) }
    }
}

/// A blob store. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// Of a local store.
    directory: Option<PathBuf>,
    /// The deployment that it belongs to, once that is known.
    mark: Option<BlobId>,
    /// The removals of blobs that were not finished.
    removals: TaskTracker,
    /// The bytes that larger reads of downloads may hold.
    larger_reads: Arc<Semaphore>,
}

impl Blobs {
    fn new(store: Arc<dyn ObjectStore>, directory: Option<PathBuf>) -> Self {
        let larger_reads = Arc::new(Semaphore::new(file_bytes::LARGER_READS));
        Self { store, directory, mark: None, removals: TaskTracker::new(), larger_reads }
    }

    /// Keeps `bytes` as a blob. They are durable when this returns.
    pub async fn put(&self, bytes: impl Into<PutPayload>) -> Result<BlobId, BlobError> {
        let id = BlobId::new();
        self.check_directory().await?;
        fail::fail_point!("blob.put", |what| Err(fault(what)));
        self.store.put(&path(id), bytes.into()).await?;
        fail::fail_point!("blob.written", |what| Err(fault(what)));
        Ok(id)
    }

    /// A blob to be written piece by piece.
    pub async fn writer(&self) -> Result<BlobWriter, BlobError> {
        self.check_directory().await?;
        let id = BlobId::new();
        let piece_bytes = if self.is_local() { writer::PIECE } else { writer::FAR_PIECE };
        Ok(BlobWriter::new(id, self.store.put_multipart(&path(id)).await?, piece_bytes, self.removals.clone()))
    }

    /// Waits until everything is removed that writers which were dropped have left behind. For the end of the process:
    /// nothing must be written any more.
    pub async fn settled(&self) {
        self.removals.close();
        self.removals.wait().await;
    }

    /// Reads a range of a blob.
    pub async fn read(&self, id: BlobId, range: Range<u64>) -> Result<Bytes, BlobError> {
        fail::fail_point!("blob.read", |what| Err(fault(what)));
        let wanted = range.end - range.start;
        let bytes = self.store.get_range(&path(id), range).await?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(BlobError::Short { id }) }
    }

    /// How long a blob is, in bytes.
    pub async fn size(&self, id: BlobId) -> Result<u64, BlobError> {
        Ok(self.store.head(&path(id)).await?.size)
    }

    /// Removes a blob that nothing refers to. One that is not there is removed already.
    pub async fn delete(&self, id: BlobId) -> Result<(), BlobError> {
        match self.store.delete(&path(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The blobs of one of the store's 256 directories that were written before a time.
    pub fn older_than(&self, directory: u8, before: Timestamp) -> impl Stream<Item = Result<BlobId, BlobError>> {
        let old = move |object: &object_store::ObjectMeta| object.last_modified.timestamp_millis() < before.0;
        let objects = self.store.list(Some(&ObjectPath::from(format!("{directory:02x}"))));
        let id = move |object: object_store::ObjectMeta| {
            object.location.filename().filter(|_| old(&object)).and_then(BlobId::parse)
        };
        objects.map_err(BlobError::from).try_filter_map(move |object| std::future::ready(Ok(id(object))))
    }

    /// Removes what writers of a local store left in one of its directories when they died, at least `age` ago. Other
    /// stores hide it, and have their own rules for it.
    pub async fn remove_unfinished(&self, directory: u8, age: Duration) -> Result<(), BlobError> {
        let Some(root) = &self.directory else { return Ok(()) };
        let directory = root.join(format!("{directory:02x}"));
        let removed = tokio::task::spawn_blocking(move || remove_unfinished(&directory, age)).await;
        removed.expect("removing files does not panic").map_err(BlobError::Unfinished)
    }

    /// Whether the store is a directory of this machine's file systems.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.directory.is_some()
    }
}

/// Spread over directories by the random end of the id; its start is a clock reading, the same for many.
fn path(id: BlobId) -> ObjectPath {
    let name = id.to_string();
    ObjectPath::from_iter([&name[name.len() - 2..], name.as_str()])
}

/// A local store writes to `name#1` and renames it when it is whole.
#[expect(clippy::disallowed_methods, reason = "compared with the file system's own times")]
fn remove_unfinished(directory: &std::path::Path, age: Duration) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    // One that cannot be removed does not keep the others.
    let mut result = Ok(());
    for entry in entries {
        let removed = entry.and_then(|entry| {
            let modified = entry.metadata()?.modified()?;
            let is_old = SystemTime::now().duration_since(modified).is_ok_and(|since| since > age);
            let is_unfinished = entry.file_name().as_encoded_bytes().contains(&b'#');
            if is_old && is_unfinished { std::fs::remove_file(entry.path()) } else { Ok(()) }
        });
        result = result.and(removed);
    }
    result
}

#[cfg(feature = "failpoints")]
#[expect(clippy::needless_pass_by_value, reason = "the shape that fail points give")]
fn fault(what: Option<String>) -> BlobError {
    BlobError::Store(object_store::Error::Generic {
        store: "test",
        source: Box::new(crate::fault::act(what.as_deref())),
    })
}

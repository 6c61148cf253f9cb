//! Opening what a process works on: the database, the blob store, and the lock on a data directory.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use crate::config::StorageConfig;
use crate::domain::ids::BlobId;
use crate::storage::Storage as _;
use crate::storage::blobs::Blobs;
use crate::storage::sql::{Db, SqlStorage};

/// What a process works on.
pub(super) struct Opened {
    pub(super) storage: Arc<SqlStorage>,
    pub(super) blobs: Blobs,
    /// Held as long as the data directory is used.
    pub(super) lock: Option<File>,
}

/// Opens what the settings name, and makes sure that it belongs together.
pub(super) async fn open(config: &StorageConfig) -> anyhow::Result<Opened> {
    let directory = &config.data_dir;
    let (db, lock) = database(config).await?;
    let blobs = match &config.blob_url {
        Some(url) => Blobs::at_url(url)?,
        None if config.database_url.is_some() => bail!(
            "--database-url is for replicas, which must share one blob store too: say which with --blob-url, such as \
             s3://bucket/prefix, or file:///a/directory that every replica sees"
        ),
        None => Blobs::local(&directory.join("blobs"))?,
    };
    if lock.is_some() {
        tracing::info!(directory = %directory.canonicalize()?.display(), "data directory");
    } else if blobs.is_local() {
        tracing::warn!("--blob-url is a directory: it must be the same one on every replica, on a shared file system");
    }
    let storage = SqlStorage::open(db).await.context("the database cannot be used")?;
    belong_together(&storage, &blobs).await?;
    Ok(Opened { storage: Arc::new(storage), blobs, lock })
}

/// Opens the database the settings name, and locks the data directory if it is there.
pub(super) async fn database(config: &StorageConfig) -> anyhow::Result<(Db, Option<File>)> {
    let directory = &config.data_dir;
    match &config.database_url {
        None => {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("the data directory {} cannot be made", directory.display()))?;
            let lock = lock(directory)?;
            Ok((Db::open_sqlite(&directory.join("batchwright.db")).await?, Some(lock)))
        }
        Some(url) => {
            let url = url.reveal();
            if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
                bail!("--database-url must start with postgres://; leave it out for the embedded database");
            }
            Ok((
                Db::open_postgres(url, config.database_connections).await.context("--database-url cannot be used")?,
                None,
            ))
        }
    }
}

/// A database names files that are in its blob store and in no other: with another, everything would seem to work until
/// somebody downloads something. The first process to open a database marks its blob store.
async fn belong_together(storage: &SqlStorage, blobs: &Blobs) -> anyhow::Result<()> {
    let candidate = BlobId::new();
    let marked = "the blob store cannot be written";
    // Before the database names it: a crash in between leaves a mark that nobody asks for.
    blobs.mark(candidate).await.context(marked)?;
    let id = storage.blob_store_id(candidate).await?;
    if id == candidate {
        return Ok(());
    }
    blobs.unmark(candidate).await.context(marked)?;
    if !blobs.is_marked(id).await.context("the blob store cannot be read")? {
        bail!(
            "this blob store is not the one that the database was used with before: give every process of a deployment \
             the same --blob-url (or --data-dir)"
        );
    }
    Ok(())
}

/// SQLite is embedded: a second process on the same directory would run the same rows.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => bail!(
            "the data directory {} is in use by another batchwright; stop it, or give another directory with --data-dir",
            directory.display()
        ),
    }
}

//! Opening what a process works on: the database, the blob store, and the lock on a data directory.

use std::fs::{DirBuilder, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::ServiceError;
use crate::config::StorageConfig;
use crate::domain::ids::BlobId;
use crate::domain::webhook::Subscription;
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::storage::sql::{Db, SqlStorage};

/// The file in a data directory that whoever uses it has locked.
const LOCK: &str = "lock";
/// The embedded database in a data directory.
const DATABASE: &str = "batchwright.db";

/// What a process works on.
pub(super) struct Opened {
    pub(super) storage: Arc<SqlStorage>,
    pub(super) blobs: Blobs,
    /// Held as long as the data directory is used.
    pub(super) lock: Option<File>,
}

/// Opens what the settings name, and makes sure that it belongs together.
pub(super) async fn open(config: &StorageConfig, subscriptions: Vec<Subscription>) -> Result<Opened, ServiceError> {
    let directory = &config.data_dir;
    let (db, lock) = database(config).await?;
    let blobs = match &config.blob_url {
        Some(url) => Blobs::at_url(url.reveal())?,
        None if config.database_url.is_some() => return Err(ServiceError::NoBlobUrl),
        None => Blobs::local(&directory.join("blobs"))?,
    };
    if lock.is_some() {
        tracing::info!(directory = %directory.canonicalize()?.display(), "data directory");
    } else if blobs.is_local() {
        tracing::warn!("--blob-url is a directory: it must be the same one on every replica, on a shared file system");
    }
    let storage = SqlStorage::open(db).await.map_err(ServiceError::Database)?.announcing(subscriptions);
    let id = belong_together(&storage, &blobs, config.adopt_blobs).await?;
    let blobs = blobs.belonging_to(id);
    Ok(Opened { storage: Arc::new(storage), blobs, lock })
}

/// The database, for a command of an operator that changes a few rows of it beside whatever uses it. The file is held
/// as long as the command runs.
///
/// A database that others may be using is not migrated: an operator decides when that is done. An embedded one that
/// nobody uses is.
pub(crate) async fn storage_beside(config: &StorageConfig) -> Result<(Arc<dyn Storage>, Option<File>), ServiceError> {
    let (db, lock) = match database(config).await {
        Err(ServiceError::DataDirectoryInUse(directory)) => (Db::open_sqlite(&directory.join(DATABASE)).await?, None),
        opened => opened?,
    };
    if lock.is_some() {
        return Ok((Arc::new(SqlStorage::open(db).await.map_err(ServiceError::Database)?), lock));
    }
    let storage = SqlStorage::beside(db).await.map_err(ServiceError::Database)?;
    Ok((Arc::new(storage.ok_or(ServiceError::NotMigrated)?), None))
}

/// Whether the data directory has no database yet, and one would be made there.
pub(crate) fn lacks_database(config: &StorageConfig) -> bool {
    config.database_url.is_none() && !config.data_dir.join(DATABASE).exists()
}

/// As [`storage_beside`], for a command that is about what the database has: none is made.
pub(crate) async fn existing_storage_beside(
    config: &StorageConfig,
) -> Result<(Arc<dyn Storage>, Option<File>), ServiceError> {
    if lacks_database(config) {
        return Err(ServiceError::NoDatabase(config.data_dir.clone()));
    }
    storage_beside(config).await
}

/// Makes a directory that only its owner may look into: it has what clients have sent, and the secrets of webhooks. One
/// that is there stays as it is.
fn make_private(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Opens the database the settings name, and locks the data directory if it is there.
pub(crate) async fn database(config: &StorageConfig) -> Result<(Db, Option<File>), ServiceError> {
    let directory = &config.data_dir;
    match &config.database_url {
        None => {
            make_private(directory)
                .map_err(|source| ServiceError::DataDirectory { path: directory.clone(), source })?;
            let lock = lock(directory)?;
            let mut db = Db::open_sqlite(&directory.join(DATABASE)).await?;
            db.watch(&directory.join(LOCK))?;
            Ok((db, Some(lock)))
        }
        Some(url) => {
            let url = url.reveal();
            if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
                return Err(ServiceError::NotPostgres);
            }
            let db = Db::open_postgres(url, config.database_connections).await.map_err(ServiceError::DatabaseUrl)?;
            Ok((db, None))
        }
    }
}

/// A database names files that are in its blob store and in no other: with another, everything would seem to work until
/// somebody downloads something. And a store is swept of what its database does not name: with a second database, each
/// would remove the other's files. So a store has the mark of one database, and its id is that database's.
///
/// The database names the id first. A crash before the store is marked leaves a database that names no blob and a store
/// without a mark, which the next start marks.
async fn belong_together(storage: &SqlStorage, blobs: &Blobs, adopt: bool) -> Result<BlobId, ServiceError> {
    let id = storage.blob_store_id(BlobId::new()).await?;
    // Before the marks are read: another replica may be the first to mark the store and to write to it meanwhile.
    let is_used = storage.names_blobs().await?;
    let mut marks = blobs.marks().await.map_err(ServiceError::BlobsUnreadable)?;
    if is_used && !marks.contains(&id) && !adopt {
        return Err(ServiceError::OtherBlobStore);
    }
    if marks.is_empty() || adopt {
        blobs.mark(id).await.map_err(ServiceError::BlobsUnwritable)?;
        for other in marks.iter().filter(|mark| **mark != id) {
            tracing::warn!(mark = %other, "the blob store is taken over from another database");
            blobs.unmark(*other).await.map_err(ServiceError::BlobsUnwritable)?;
        }
        // Of two databases that find no mark at the same moment, at least one finds the other's now.
        marks = blobs.marks().await.map_err(ServiceError::BlobsUnreadable)?;
    }
    if marks != [id] {
        return Err(ServiceError::OtherDatabase);
    }
    Ok(id)
}

/// SQLite is embedded: a second process on the same directory would run the same rows.
pub(crate) fn lock(directory: &Path) -> Result<File, ServiceError> {
    let path = directory.join(LOCK);
    let file = File::create(&path).map_err(|source| ServiceError::Lock { path, source })?;
    file.try_lock().map_err(|_| ServiceError::DataDirectoryInUse(directory.to_owned()))?;
    Ok(file)
}

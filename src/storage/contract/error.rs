//! Why the storage could not do what it was asked.

use std::path::PathBuf;
use std::time::Duration;

use crate::storage::blobs::{self, Blobs};

/// The result of asking the storage for something.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Why the storage could not do or find out what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No answer in time. What was asked may have happened all the same.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The database cannot be reached. Asking again later can help.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// The database's disk is full. Asking again helps once there is room.
    #[error("the database's disk is full: make room, and work goes on by itself")]
    Full(#[source] sqlx::Error),
    /// A file of the embedded database is not where it was opened: what is written to it would be lost.
    #[error(
        "{} is not the file that was opened: the data directory was deleted, moved away or replaced. Bring it back, or \
         start again", path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// Why it cannot be looked at, if it cannot.
        source: Option<std::io::Error>,
    },
    /// A row that no version of this program wrote.
    #[error("{table}.{column} of {id} cannot be read")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The id of the row.
        id: String,
    },
    /// The database was migrated by a newer version of this program.
    #[error(
        "the database's schema has version {found}; this program knows versions up to {known}: use a newer program"
    )]
    TooNew {
        /// The version of the database's schema.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("the database could not be migrated")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// Anything else: a fault of this program or of the database.
    #[error("the database refused a statement")]
    Internal(#[source] sqlx::Error),
}

impl StorageError {
    /// Whether the database is the cause, and not what it was asked about: whatever else is asked fails alike.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Unavailable(_)
            | Self::Full(_)
            | Self::Gone { .. }
            | Self::TooNew { .. }
            | Self::Migration(_) => true,
            Self::Corrupt { .. } | Self::Internal(_) => false,
        }
    }
}

/// Why something that is kept could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] blobs::BlobError),
}

impl ReadError {
    /// Whether the database or the blob store is away. What was to be read is as it was, and asking again later helps.
    pub async fn is_outage(&self, blobs: &Blobs) -> bool {
        match self {
            Self::Storage(error) => error.is_outage(),
            // In a store without its mark every blob is gone: it is the store that is not there, and it may come back.
            Self::Blob(error) => !error.is_gone() || blobs.check().await.is_err(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BlobId;
    use crate::storage::blobs::BlobError;

    fn not_found() -> ReadError {
        BlobError::from(object_store::Error::NotFound { path: String::new(), source: "gone".into() }).into()
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_told_from_one_that_has_lost_or_damaged_what_it_is_asked_for() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let present = Blobs::local(directory.path()).expect("a directory");
        let absent = present.clone().belonging_to(BlobId::new());
        let refused = Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let failed = object_store::Error::Generic { store: "test", source: refused };
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let corrupt = StorageError::Corrupt { table: "t", column: "c", id: "i".to_owned() };
        let cases: [(ReadError, &Blobs, bool); 10] = [
            (StorageError::Timeout(Duration::from_secs(20)).into(), &present, true),
            (StorageError::Unavailable(sqlx::Error::PoolTimedOut).into(), &present, true),
            (StorageError::Full(sqlx::Error::Io(full)).into(), &present, true),
            (StorageError::Gone { path: PathBuf::new(), source: None }.into(), &present, true),
            (corrupt.into(), &present, false),
            (StorageError::Internal(sqlx::Error::RowNotFound).into(), &present, false),
            (BlobError::from(failed).into(), &present, true),
            (BlobError::Short { id: BlobId::new() }.into(), &present, false),
            (not_found(), &present, false),
            (not_found(), &absent, true),
        ];
        for (error, blobs, is_outage) in cases {
            assert_eq!(error.is_outage(blobs).await, is_outage, "{error:?}");
        }
    }
}

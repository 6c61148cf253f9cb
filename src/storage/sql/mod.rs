//! The storage in SQL: one body of statements for SQLite and PostgreSQL.
//!
//! Each statement stands beside its only caller. What the two databases do differently is in `dialect`.

mod batches;
mod db;
mod dialect;
mod files;
mod hints;
mod leases;
mod ledger;
mod migrate;
mod presence;
mod readable;
mod record;
mod steps;
mod upkeep;

use async_trait::async_trait;
use uuid::Uuid;

pub use db::Db;
use db::{End, Pools, in_write, on_reader};
use dialect::{query, query_scalar};

use crate::domain::ids::BlobId;
use crate::storage::{Result, Storage, StorageError};

/// A database with the schema this program knows.
pub struct SqlStorage {
    db: Db,
    #[cfg(feature = "failpoints")]
    unguarded: bool,
}

impl SqlStorage {
    /// Brings the database up to date and takes it into use.
    ///
    /// SQLite belongs to one process, so every daemon it knows is dead: their leases can be taken over at once.
    pub async fn open(db: Db) -> Result<Self> {
        db.migrate().await?;
        if let Pools::Sqlite { writer, .. } = &db.pools {
            query("DELETE FROM daemons").execute(writer).await?;
        }
        Ok(Self {
            db,
            #[cfg(feature = "failpoints")]
            unguarded: false,
        })
    }

    /// The same without the ledger's guard, to show that the guard is what finds a fault.
    #[cfg(feature = "failpoints")]
    #[must_use]
    pub fn without_guard(mut self) -> Self {
        self.unguarded = true;
        self
    }

    #[cfg(feature = "failpoints")]
    fn is_guarded(&self) -> bool {
        !self.unguarded
    }

    #[cfg(not(feature = "failpoints"))]
    #[expect(clippy::unused_self, reason = "tests alone can switch the guard off")]
    fn is_guarded(&self) -> bool {
        true
    }
}

const SET_BLOB_STORE: &str = "
    INSERT INTO deployment (only_row, blob_store_id)
    VALUES (1, $1)
    ON CONFLICT (only_row) DO NOTHING";
const NAMES_BLOBS: &str = "
    SELECT 1 WHERE EXISTS (SELECT 1 FROM file_parts) OR EXISTS (SELECT 1 FROM retired_blobs)";
const BLOB_STORE: &str = "SELECT blob_store_id FROM deployment";

#[async_trait]
impl Storage for SqlStorage {
    async fn check(&self) -> Result<()> {
        self.db.presence.check()?;
        on_reader!(self.db, conn => {
            query("SELECT 1").execute(&mut *conn).await?;
            Ok(())
        })
    }

    async fn names_blobs(&self) -> Result<bool> {
        on_reader!(self.db, conn => {
            let any: Option<i32> = query_scalar(NAMES_BLOBS).fetch_optional(&mut *conn).await?;
            Ok(any.is_some())
        })
    }

    async fn blob_store_id(&self, candidate: BlobId) -> Result<BlobId> {
        let known: Option<Uuid> = on_reader!(self.db, conn => {
            Ok(query_scalar(BLOB_STORE).fetch_optional(&mut *conn).await?)
        })?;
        if let Some(id) = known {
            return Ok(BlobId(id));
        }
        let id: Uuid = in_write!(self.db, tx => {
            query(SET_BLOB_STORE).bind(candidate.0).execute(&mut *tx).await?;
            End::Commit(query_scalar(BLOB_STORE).fetch_one(&mut *tx).await?)
        })?;
        Ok(BlobId(id))
    }
}

fn corrupt(table: &'static str, column: &'static str, id: impl std::fmt::Display) -> StorageError {
    StorageError::Corrupt { table, column, id: format!("{id}") }
}

/// Counts are stored as BIGINT; none of them is negative or beyond it.
fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn to_u64(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

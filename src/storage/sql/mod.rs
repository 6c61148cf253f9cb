//! The storage in SQL: one body of statements for SQLite and PostgreSQL.
//!
//! Each statement stands beside its only caller. What the two databases do differently is in `dialect`.

mod batches;
mod db;
mod dialect;
mod files;
mod leases;
mod ledger;
mod migrate;

use async_trait::async_trait;

pub use db::Db;
use db::{End, Pools, in_write, on_reader};

use crate::storage::{Result, Storage, StorageError};

/// A database with the schema this program knows.
pub struct SqlStorage {
    db: Db,
}

impl SqlStorage {
    /// Brings the database up to date and takes it into use.
    ///
    /// SQLite belongs to one process, so every daemon it knows is dead: their leases can be taken over at once.
    pub async fn open(db: Db) -> Result<Self> {
        db.migrate().await?;
        if let Pools::Sqlite { writer, .. } = &db.pools {
            sqlx::query("DELETE FROM daemons").execute(writer).await?;
        }
        Ok(Self { db })
    }
}

#[async_trait]
impl Storage for SqlStorage {
    async fn check(&self) -> Result<()> {
        on_reader!(self.db, pool => {
            sqlx::query("SELECT 1").execute(pool).await?;
            Ok(())
        })
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

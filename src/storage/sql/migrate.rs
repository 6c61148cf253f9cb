//! Bringing a database's schema up to date, and refusing one from the future.

use sqlx::migrate::{MigrateError, Migrator};

use super::db::{Db, Pools};
use crate::storage::{Result, StorageError};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

impl Db {
    /// Runs the migrations that have not run. Replicas that start together wait for each other.
    pub async fn migrate(&self) -> Result<()> {
        let result = match &self.pools {
            Pools::Sqlite { writer, .. } => SQLITE.run(writer).await,
            Pools::Postgres(pool) => POSTGRES.run(pool).await,
        };
        result.map_err(|error| match error {
            MigrateError::VersionMissing(found) => {
                StorageError::TooNew { found, known: SQLITE.iter().map(|m| m.version).max().unwrap_or(0) }
            }
            error => StorageError::Migration(error),
        })
    }
}

//! Bringing a database's schema up to date, and refusing one from the future.

use std::sync::LazyLock;

use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

use super::db::{Db, Pools};
use crate::storage::{Result, StorageError};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("migrations/postgres");
    // Its own lock belongs to a session, and a pooler may hand the session on.
    migrator.set_locking(false);
    migrator
});

/// All migrations run in one transaction, which holds this lock: replicas that start together wait for each other. The
/// migrator's statements have names, which must not meet those of somebody who had the session before.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7526110349024617); DEALLOCATE ALL";
const UNLOCK: &str = "DEALLOCATE ALL";

/// The newest migration that has run.
const NEWEST: &str = "SELECT MAX(version) FROM _sqlx_migrations";

impl Db {
    /// Whether the migrations that this program knows have run. A database of a newer program is an error.
    pub(super) async fn is_migrated(&self) -> Result<bool> {
        let newest = match &self.pools {
            Pools::Sqlite { reader, .. } => sqlx::query_scalar(NEWEST).fetch_one(reader).await,
            Pools::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                sqlx::query_scalar(NEWEST).persistent(false).fetch_one(&mut *tx).await
            }
        };
        let newest: Option<i64> = match newest {
            // Nothing was ever migrated.
            Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("1" | "42P01")) => None,
            newest => newest?,
        };
        let known = SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0);
        match newest {
            Some(found) if found > known => Err(StorageError::TooNew { found, known }),
            newest => Ok(newest == Some(known)),
        }
    }

    /// Runs the migrations that have not run.
    pub async fn migrate(&self) -> Result<()> {
        let result = match &self.pools {
            Pools::Sqlite { writer, .. } => SQLITE.run(writer).await,
            Pools::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                let migrated = migrate_locked(&mut tx).await;
                if migrated.is_ok() {
                    tx.commit().await?;
                }
                migrated
            }
        };
        result.map_err(|error| match error {
            MigrateError::VersionMissing(found) => {
                StorageError::TooNew { found, known: SQLITE.iter().map(|m| m.version).max().unwrap_or(0) }
            }
            error => StorageError::Migration(error),
        })
    }
}

async fn migrate_locked(connection: &mut PgConnection) -> Result<(), MigrateError> {
    sqlx::raw_sql(LOCK).execute(&mut *connection).await?;
    POSTGRES.run_direct(None, &mut *connection, false).await?;
    sqlx::raw_sql(UNLOCK).execute(&mut *connection).await?;
    Ok(())
}

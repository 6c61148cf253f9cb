//! The pools, and how one body of SQL is compiled for each.
//!
//! [`on_reader!`] and [`in_write!`] expand their body once for SQLite and once for PostgreSQL, with native types and
//! no generics. Both put a bound on how long a caller waits.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

use crate::domain::time::Clock;
use crate::storage::{Result, StorageError};

/// How long any call of the storage may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// SQLite has one writer; readers do not wait for it.
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 16;

/// A database.
pub struct Db {
    pub(super) pools: Pools,
    /// The clock of a database that has none of its own.
    pub(super) clock: Clock,
}

pub(super) enum Pools {
    Sqlite { writer: SqlitePool, reader: SqlitePool },
    Postgres(PgPool),
}

impl Db {
    /// Opens the SQLite database at `path`, which is made if it is not there.
    pub async fn open_sqlite(path: &Path, clock: Clock) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit is on disk when it returns, as `nothing acknowledged is lost` needs.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = || SqlitePoolOptions::new().acquire_timeout(CALL_TIMEOUT);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        let reader = pool().max_connections(SQLITE_READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { pools: Pools::Sqlite { writer, reader }, clock })
    }

    /// Connects to the PostgreSQL database at `url`.
    pub async fn open_postgres(url: &str, clock: Clock) -> Result<Self> {
        let options: PgConnectOptions = url.parse().map_err(StorageError::Unavailable)?;
        let pool = PgPoolOptions::new()
            .acquire_timeout(CALL_TIMEOUT)
            .max_connections(POSTGRES_CONNECTIONS)
            .connect_with(options)
            .await?;
        Ok(Self { pools: Pools::Postgres(pool), clock })
    }

    /// Waits for a call, but not for ever.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(StorageError::Timeout(CALL_TIMEOUT)))
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            error => Self::Internal(error),
        }
    }
}

/// What becomes of a write transaction.
pub(super) enum End<T> {
    Commit(T),
    Rollback(T),
}

/// Runs a body on a connection that only reads: `on_reader!(self.db, pool => …)`.
macro_rules! on_reader {
    ($db:expr, $pool:ident => $body:expr) => {
        $db.timed(async {
            match &$db.pools {
                $crate::storage::sql::db::Pools::Sqlite { reader: $pool, .. } => $body,
                $crate::storage::sql::db::Pools::Postgres($pool) => $body,
            }
        })
        .await
    };
}

/// Runs a body in a transaction: `in_write!(self.db, tx => …)`. The body ends in an [`End`]; an error rolls back.
macro_rules! in_write {
    ($db:expr, $tx:ident => $body:expr) => {
        $db.timed(async {
            match &$db.pools {
                // IMMEDIATE takes the write lock at once; a lock taken later, on the way, could fail.
                $crate::storage::sql::db::Pools::Sqlite { writer, .. } => {
                    let mut $tx = writer.begin_with("BEGIN IMMEDIATE").await?;
                    $crate::storage::sql::db::end_with!($tx, $body)
                }
                $crate::storage::sql::db::Pools::Postgres(pool) => {
                    let mut $tx = pool.begin().await?;
                    $crate::storage::sql::db::end_with!($tx, $body)
                }
            }
        })
        .await
    };
}

macro_rules! end_with {
    ($tx:ident, $body:expr) => {
        match $body {
            $crate::storage::sql::db::End::Commit(value) => {
                $tx.commit().await?;
                Ok(value)
            }
            $crate::storage::sql::db::End::Rollback(value) => {
                $tx.rollback().await?;
                Ok(value)
            }
        }
    };
}

pub(super) use {end_with, in_write, on_reader};

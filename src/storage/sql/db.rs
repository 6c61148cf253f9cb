//! The pools, and how a function of the statements is called on a connection of one.
//!
//! [`on_reader!`] and [`in_write!`] choose between the function as it is compiled for SQLite and for PostgreSQL. Both
//! put a bound on how long a caller waits. On PostgreSQL a call is one transaction and leaves no state in its session,
//! so that a pooler may give every transaction another.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Database, PgConnection, PgPool, Pool, Postgres, Sqlite, SqlitePool, Transaction};

use super::presence::Presence;
use crate::storage::{Result, StorageError};

/// How long any call of the storage may take, once it has a connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a call waits for a connection: for one that is free, and for the database to take a new one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// SQLite has one writer; readers do not wait for it.
const SQLITE_READERS: u32 = 4;

/// Bounds on what the server does for a transaction, so that what its client has given up does not go on there. The
/// second frees the locks of a client that stands still in the middle, long before its leases lapse.
macro_rules! bounded {
    ($begin:literal) => {
        concat!($begin, "; SET LOCAL statement_timeout = 10000; SET LOCAL idle_in_transaction_session_timeout = 5000")
    };
}

pub(super) const BEGIN_READ: &str = bounded!("BEGIN READ ONLY");
pub(super) const BEGIN_WRITE: &str = bounded!("BEGIN");

/// A connection that has been idle for so long is tested before it is used, and given up if it does not answer.
const TESTED_AFTER: Duration = Duration::from_secs(1);
const TEST_TIMEOUT: Duration = Duration::from_secs(2);

/// A database.
pub struct Db {
    pub(super) pools: Pools,
    /// The files of an embedded one.
    pub(super) presence: Presence,
}

pub(super) enum Pools {
    Sqlite { writer: SqlitePool, reader: SqlitePool },
    Postgres(PgPool),
}

impl Db {
    /// Opens the SQLite database at `path`, which is made if it is not there.
    pub async fn open_sqlite(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: a commit is on disk when it returns, as `nothing acknowledged is lost` needs.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = || SqlitePoolOptions::new().acquire_timeout(CALL_TIMEOUT);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        // A later connection must not make an empty database where this one was deleted.
        let options = options.create_if_missing(false);
        writer.set_connect_options(options.clone());
        let reader = pool().max_connections(SQLITE_READERS).connect_with(options.read_only(true)).await?;
        let mut presence = Presence::default();
        presence.watch(path)?;
        Ok(Self { pools: Pools::Sqlite { writer, reader }, presence })
    }

    /// Has every write look for this file too, which stands for the right to use the database.
    pub fn watch(&mut self, path: &Path) -> Result<()> {
        self.presence.watch(path)
    }

    /// Connects to the PostgreSQL database at `url`, over at most `connections` connections.
    pub async fn open_postgres(url: &str, connections: u32) -> Result<Self> {
        let options: PgConnectOptions = url.parse().map_err(StorageError::Unavailable)?;
        // No float is ever read, and poolers refuse startup parameters that they do not know.
        let options = options.extra_float_digits(None).statement_cache_capacity(0);
        let pool = PgPoolOptions::new()
            .acquire_timeout(CONNECT_TIMEOUT)
            .max_connections(connections)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(answers(connection, meta.idle_for)))
            .connect_with(options)
            .await?;
        Ok(Self { pools: Pools::Postgres(pool), presence: Presence::default() })
    }
}

/// Whether a connection can be used, which is tested if it has been idle for long.
async fn answers(connection: &mut PgConnection, idle_for: Duration) -> sqlx::Result<bool> {
    if idle_for < TESTED_AFTER {
        return Ok(true);
    }
    Ok(matches!(tokio::time::timeout(TEST_TIMEOUT, connection.ping()).await, Ok(Ok(()))))
}

/// Waits for a call, but not for ever.
pub(super) async fn timed<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(StorageError::Timeout(CALL_TIMEOUT)))
}

/// A connection lent to one call. It goes back to the pool when the call has ended well. After an error it is closed:
/// nobody knows whether one that was given up will ever answer, nor what is left of a transaction that failed to end.
/// (A COMMIT that finds the disk full has rolled back by itself, which sqlx does not learn.)
pub(super) struct Lent<D: Database>(Option<PoolConnection<D>>);

impl<D: Database> Lent<D> {
    pub(super) async fn from(pool: &Pool<D>) -> Result<Self> {
        Ok(Self(Some(pool.acquire().await?)))
    }

    /// A connection to write to an embedded database, whose files must be there.
    pub(super) async fn to_write(pool: &Pool<D>, presence: &Presence) -> Result<Self> {
        let connection = pool.acquire().await?;
        presence.check()?;
        Ok(Self(Some(connection)))
    }

    /// Gives the connection back, unless the call has failed.
    pub(super) fn end<T>(mut self, result: &Result<T>) {
        if result.is_err() {
            return;
        }
        if let Some(mut connection) = self.0.take() {
            // The pool tests what comes back, and rolls back what was left open, for as long as that takes.
            tokio::spawn(tokio::time::timeout(TEST_TIMEOUT, connection.return_to_pool()));
        }
    }
}

// Once for each database: of a generic one the compiler does not see that it can be sent between threads.
macro_rules! begins {
    ($($database:ident),+) => {$(
        impl Lent<$database> {
            pub(super) async fn begin(&mut self, statement: &'static str) -> Result<Transaction<'_, $database>> {
                let connection = self.0.as_mut().expect("it is taken only at the end");
                Ok(connection.begin_with(statement).await?)
            }
        }
    )+};
}

begins!(Sqlite, Postgres);

impl<D: Database> Drop for Lent<D> {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::BeginFailed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| is_full(&code)) => Self::Full(error),
            sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| passes(&code)) => {
                Self::Unavailable(error)
            }
            _ => Self::Internal(error),
        }
    }
}

/// SQLite's `SQLITE_FULL`, PostgreSQL's `disk_full`.
fn is_full(code: &str) -> bool {
    sqlite_code(code) == Some(13) || code == "53100"
}

/// SQLite's primary code; the extended ones that it gives have it in their lowest byte. PostgreSQL's have five places.
fn sqlite_code(code: &str) -> Option<u32> {
    let code: Option<u32> = if code.len() < 5 { code.parse().ok() } else { None };
    code.map(|code| code & 0xff)
}

/// Whether what a database refuses with this code can go well later. Of SQLite's codes: busy, locked, out of memory,
/// I/O, a file that cannot be opened. PostgreSQL's classes: connections, servers that only read, logins and databases
/// that are refused, rollbacks by the server (deadlocks), resources, operator's doing, system.
fn passes(code: &str) -> bool {
    matches!(sqlite_code(code), Some(5 | 6 | 7 | 10 | 14))
        || ["08", "25006", "25P03", "28", "3D", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
}

/// Calls a function of the statements on a connection that only reads: `on_reader!(self.db, files::parts(id))`.
macro_rules! on_reader {
    ($db:expr, $noun:ident::$call:ident($($argument:expr),* $(,)?)) => {
        match &$db.pools {
            $crate::storage::sql::db::Pools::Sqlite { reader, .. } => {
                $crate::storage::sql::db::timed(async {
                    $crate::storage::sql::db::reading(concat!("read.", stringify!($noun), ".", stringify!($call)))?;
                    let mut conn = reader.acquire().await?;
                    $crate::storage::sql::sqlite::$noun::$call(&mut conn, $($argument),*).await
                })
                .await
            }
            $crate::storage::sql::db::Pools::Postgres(pool) => {
                let mut lent = $crate::storage::sql::db::Lent::from(pool).await?;
                let result = $crate::storage::sql::db::timed(async {
                    $crate::storage::sql::db::reading(concat!("read.", stringify!($noun), ".", stringify!($call)))?;
                    let mut conn = lent.begin($crate::storage::sql::db::BEGIN_READ).await?;
                    $crate::storage::sql::postgres::$noun::$call(&mut conn, $($argument),*).await
                })
                .await;
                lent.end(&result);
                result
            }
        }
    };
}

/// Calls a function of the statements in a transaction, which ends as the [`End`] says that the function returns; an
/// error rolls back: `in_write!(self.db, ledger::finish(ending, now))`.
macro_rules! in_write {
    ($db:expr, $noun:ident::$call:ident($($argument:expr),* $(,)?)) => {
        match &$db.pools {
            $crate::storage::sql::db::Pools::Sqlite { writer, .. } => {
                let mut lent = $crate::storage::sql::db::Lent::to_write(writer, &$db.presence).await?;
                let result = $crate::storage::sql::db::timed(async {
                    // IMMEDIATE takes the write lock at once; a lock taken later, on the way, could fail.
                    let mut tx = lent.begin("BEGIN IMMEDIATE").await?;
                    $crate::storage::sql::db::begun()?;
                    let end = $crate::storage::sql::sqlite::$noun::$call(&mut tx, $($argument),*).await?;
                    $crate::storage::sql::db::end(tx, end).await
                })
                .await;
                lent.end(&result);
                result
            }
            $crate::storage::sql::db::Pools::Postgres(pool) => {
                let mut lent = $crate::storage::sql::db::Lent::from(pool).await?;
                let result = $crate::storage::sql::db::timed(async {
                    let mut tx = lent.begin($crate::storage::sql::db::BEGIN_WRITE).await?;
                    $crate::storage::sql::db::begun()?;
                    let end = $crate::storage::sql::postgres::$noun::$call(&mut tx, $($argument),*).await?;
                    $crate::storage::sql::db::end(tx, end).await
                })
                .await;
                lent.end(&result);
                result
            }
        }
    };
}

/// Is reached before each read. Its point is that of the call alone, so that a test can fail one read among many.
#[cfg_attr(not(feature = "failpoints"), expect(clippy::unnecessary_wraps, reason = "a fail point can refuse"))]
pub(super) fn reading(point: &'static str) -> Result<()> {
    // Without fail points nothing uses it.
    let _ = point;
    fail::fail_point!(point, |what| Err(fault(what)));
    Ok(())
}

/// What becomes of a write transaction.
pub(super) enum End<T> {
    Commit(T),
    Rollback(T),
}

#[cfg_attr(not(feature = "failpoints"), expect(clippy::unnecessary_wraps, reason = "a fail point can refuse"))]
pub(super) fn begun() -> Result<()> {
    fail::fail_point!("transaction.begun", |what| Err(fault(what)));
    Ok(())
}

/// Ends a write transaction as the function that wrote has decided.
pub(super) async fn end<D: Database, T>(tx: Transaction<'_, D>, end: End<T>) -> Result<T> {
    match end {
        End::Commit(value) => {
            fail::fail_point!("commit.sent", |what| Err(fault(what)));
            tx.commit().await?;
            // An error here is a commit whose answer was lost.
            fail::fail_point!("commit.answered", |what| Err(fault(what)));
            Ok(value)
        }
        End::Rollback(value) => {
            tx.rollback().await?;
            Ok(value)
        }
    }
}

#[cfg(feature = "failpoints")]
#[expect(clippy::needless_pass_by_value, reason = "the shape that fail points give")]
pub(super) fn fault(what: Option<String>) -> StorageError {
    StorageError::Unavailable(sqlx::Error::Io(crate::fault::act(what.as_deref())))
}

pub(super) use {in_write, on_reader};

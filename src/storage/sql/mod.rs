//! The storage in SQL: one text of statements for SQLite and PostgreSQL.
//!
//! `statements` has a file for each noun: the statements, and plain functions that send them on one connection.
//! `sqlite` and `postgres` compile these files, each with its own connection type, and have what the two do
//! differently. The files here implement the contract: they call the functions by `on_reader!` and `in_write!`, and
//! read what comes back.

mod batches;
mod db;
mod files;
mod hints;
mod keys;
mod leases;
mod ledger;
mod message_batches;
mod migrate;
mod postgres;
mod presence;
mod progress;
mod projects;
mod readable;
mod request_keys;
mod sqlite;
mod steps;
mod upkeep;
mod uploads;
mod webhooks;

use async_trait::async_trait;

pub use db::Db;
use db::{End, Pools, in_write, on_reader};

use crate::domain::ids::BlobId;
use crate::domain::owner::Owner;
use crate::domain::webhook::Subscription;
use crate::storage::{Result, Storage, StorageError};

/// A database with the schema this program knows.
pub struct SqlStorage {
    db: Db,
    /// The receivers of the settings, for the events of batches that end.
    subscriptions: Vec<Subscription>,
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
            sqlite::query::query("DELETE FROM daemons").execute(writer).await?;
        }
        Ok(Self {
            db,
            subscriptions: Vec::new(),
            #[cfg(feature = "failpoints")]
            unguarded: false,
        })
    }

    /// Takes a database into use beside the processes that run on it. None if it was not migrated as far as this
    /// program knows: that is for them to do.
    pub async fn beside(db: Db) -> Result<Option<Self>> {
        let is_known = db.is_migrated().await?;
        Ok(is_known.then_some(Self {
            db,
            subscriptions: Vec::new(),
            #[cfg(feature = "failpoints")]
            unguarded: false,
        }))
    }

    /// The same with these receivers of the events of all batches that end.
    #[must_use]
    pub fn announcing(mut self, subscriptions: Vec<Subscription>) -> Self {
        self.subscriptions = subscriptions;
        self
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

#[async_trait]
impl Storage for SqlStorage {
    async fn check(&self) -> Result<()> {
        self.db.presence.check()?;
        on_reader!(self.db, deployment::check())
    }

    async fn names_blobs(&self) -> Result<bool> {
        on_reader!(self.db, deployment::names_blobs())
    }

    async fn blob_store_id(&self, candidate: BlobId) -> Result<BlobId> {
        match on_reader!(self.db, deployment::blob_store())? {
            Some(id) => Ok(id),
            None => in_write!(self.db, deployment::set_blob_store(candidate)),
        }
    }
}

fn corrupt(table: &'static str, column: &'static str, id: impl std::fmt::Display) -> StorageError {
    StorageError::Corrupt { table, column, id: format!("{id}") }
}

/// The owner in a row of a table.
fn owner_of(stored: &str, table: &'static str, id: impl std::fmt::Display) -> Result<Owner> {
    Owner::parse(stored).ok_or_else(|| corrupt(table, "owner", id))
}

/// Counts are stored as BIGINT; none of them is negative or beyond it.
fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn to_u64(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

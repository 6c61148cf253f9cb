//! SQLite: what it does in its own way, and the statements as they are compiled for it.

#![expect(clippy::duplicate_mod, reason = "each file of statements is compiled once for each database")]

use sqlx::sqlite::{Sqlite, SqliteConnection, SqliteRow};

pub type Database = Sqlite;
pub type Conn = SqliteConnection;
pub type Row = SqliteRow;

/// Connections keep their statements prepared.
pub const KEEPS_STATEMENTS: bool = true;

/// There are no other replicas.
pub const ANNOUNCE: Option<&str> = None;

/// There is one writer, so that whoever asks this while writing holds the lease until the transaction ends.
pub const LOCK_LEASE: &str = "SELECT 1 FROM leases WHERE id = $1 AND token = $2";

/// A heartbeat. The clock is the database's, which all replicas share, in its own words.
pub const BEAT: &str = "
    INSERT INTO daemons (id, lifetime, beats, beat_at)
    VALUES ($1, $2, $3, CAST(unixepoch('subsec') * 1000 AS INTEGER))
    ON CONFLICT (id) DO UPDATE
    SET lifetime = excluded.lifetime, beats = daemons.beats + 1, beat_at = excluded.beat_at";

/// What each daemon told, and how many milliseconds ago it beat, by the same clock.
pub const REPORTS: &str = "
    SELECT id, activity, CAST(unixepoch('subsec') * 1000 AS INTEGER) - beat_at
    FROM daemons
    ORDER BY id";

#[path = "statements/attempts.rs"]
pub mod attempts;
#[path = "statements/batches.rs"]
pub mod batches;
#[path = "statements/deployment.rs"]
pub mod deployment;
#[path = "statements/files.rs"]
pub mod files;
#[path = "statements/keys.rs"]
pub mod keys;
#[path = "statements/leases.rs"]
pub mod leases;
#[path = "statements/ledger.rs"]
pub mod ledger;
#[path = "statements/message_batches.rs"]
pub mod message_batches;
#[path = "statements/progress.rs"]
pub mod progress;
#[path = "statements/projects.rs"]
pub mod projects;
#[path = "statements/query.rs"]
pub mod query;
#[path = "statements/record.rs"]
mod record;
#[path = "statements/request_keys.rs"]
pub mod request_keys;
#[path = "statements/steering.rs"]
pub mod steering;
#[path = "statements/steps.rs"]
pub mod steps;
#[path = "statements/upkeep.rs"]
pub mod upkeep;
#[path = "statements/uploads.rs"]
pub mod uploads;
#[path = "statements/webhooks.rs"]
pub mod webhooks;

//! PostgreSQL: what it does in its own way, and the statements as they are compiled for it.

#![expect(clippy::duplicate_mod, reason = "each file of statements is compiled once for each database")]

use sqlx::postgres::{PgConnection, PgRow, Postgres};

pub type Database = Postgres;
pub type Conn = PgConnection;
pub type Row = PgRow;

/// A prepared statement is state of a session, and behind a pooler the next transaction may have another session.
pub const KEEPS_STATEMENTS: bool = false;

/// A hint to the other replicas that there is something to do, sent when the transaction commits.
pub const ANNOUNCE: Option<&str> = Some("NOTIFY batchwright");

/// Holds the lease until the transaction ends.
pub const LOCK_LEASE: &str = "SELECT 1 FROM leases WHERE id = $1 AND token = $2 FOR UPDATE";

/// A heartbeat. The clock is the database's, which all replicas share, in its own words.
pub const BEAT: &str = "
    INSERT INTO daemons (id, lifetime, beats, beat_at)
    VALUES ($1, $2, $3, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT))
    ON CONFLICT (id) DO UPDATE
    SET lifetime = excluded.lifetime, beats = daemons.beats + 1, beat_at = excluded.beat_at";

/// What each daemon told, and how many milliseconds ago it beat, by the same clock.
pub const REPORTS: &str = "
    SELECT id, activity, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) - beat_at
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

//! The few things the two databases do differently.

use sqlx::{PgConnection, SqliteConnection};

use crate::domain::time::{Clock, Timestamp};
use crate::storage::Result;

/// Leases live by the database's clock, so that the clocks of replicas need not agree.
pub(super) trait DatabaseClock {
    async fn now(&mut self, clock: &Clock) -> Result<Timestamp>;
}

impl DatabaseClock for SqliteConnection {
    /// One process holds the database: its clock is the database's.
    async fn now(&mut self, clock: &Clock) -> Result<Timestamp> {
        Ok(clock.now())
    }
}

impl DatabaseClock for PgConnection {
    /// `clock_timestamp`, not `now`: the latter stands still within a transaction.
    async fn now(&mut self, _clock: &Clock) -> Result<Timestamp> {
        const NOW: &str = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT";
        Ok(Timestamp(sqlx::query_scalar(NOW).fetch_one(self).await?))
    }
}

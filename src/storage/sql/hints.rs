//! Hints from other replicas, by LISTEN and NOTIFY.
//!
//! Only hints: behind a transaction-pooling pgbouncer none arrive, and every loop looks by itself now and then.

use std::time::Duration;

use sqlx::Executor as _;
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::SqlStorage;
use super::db::Pools;
use crate::wakeup::Wakeup;

/// After so long without a hint the connection is tested: one that broke in silence would stay silent.
const QUIET: Duration = Duration::from_secs(30);
const TEST_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

impl SqlStorage {
    /// Passes on what other replicas announce, for as long as it is polled. On SQLite there are none.
    pub async fn relay_hints(&self, wakeup: &Wakeup) {
        let Pools::Postgres(pool) = &self.db.pools else { return std::future::pending().await };
        loop {
            // A pool of its own, so that a connection that hangs takes no place among the others.
            let own = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(TEST_TIMEOUT)
                .connect_lazy_with((*pool.connect_options()).clone());
            if let Err(error) = relay(&own, wakeup).await {
                tracing::debug!(%error, "hints from other replicas are not heard; polling goes on");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Listens until the connection breaks.
async fn relay(pool: &sqlx::PgPool, wakeup: &Wakeup) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen("batchwright").await?;
    // Whatever was announced while nobody listened.
    wakeup.wake();
    loop {
        if let Ok(received) = tokio::time::timeout(QUIET, listener.try_recv()).await {
            let Some(_) = received? else { return Ok(()) };
            wakeup.wake();
        } else {
            let test = tokio::time::timeout(TEST_TIMEOUT, listener.execute("SELECT 1"));
            test.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        }
    }
}

//! Hints from other replicas, by LISTEN and NOTIFY.
//!
//! Only hints: every loop looks by itself now and then. Behind a pooler nobody listens. A session that listens is
//! handed on there, and whoever has it next gets notifications in the middle of their own answers.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Executor as _, PgPool};

use super::SqlStorage;
use super::db::{BEGIN_READ, Lent, Pools, timed};
use super::postgres::query::query_as;
use crate::wakeup::Wakeup;

/// After so long without a hint the connection is tested: one that broke in silence would stay silent.
const QUIET: Duration = Duration::from_secs(30);
const TEST_TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Over a Unix socket the server has no address, and the port that the socket is named after.
const SERVER: &str = "SELECT host(inet_server_addr()), COALESCE(inet_server_port(), current_setting('port')::INT)";

impl SqlStorage {
    /// Passes on what other replicas announce, for as long as it is polled. On SQLite there are none.
    pub async fn relay_hints(&self, wakeup: &Wakeup) {
        let Pools::Postgres(pool) = &self.db.pools else { return std::future::pending().await };
        while !is_pooled(pool).await {
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
        tracing::info!("the database is behind a pooler: what other replicas do is found out by polling");
        std::future::pending::<()>().await;
    }
}

/// Whether somebody stands between this process and the server, as far as can be told: the server has another address
/// or port than those that were connected to. Of one behind a translated address too, which costs it the hints and
/// nothing else. False if the server cannot be asked.
async fn is_pooled(pool: &PgPool) -> bool {
    let options = pool.connect_options();
    let asked: Result<(Option<String>, i32), _> = async {
        let mut lent = Lent::from(pool).await?;
        let answer = timed(async { Ok(query_as(SERVER).fetch_one(&mut *lent.begin(BEGIN_READ).await?).await?) }).await;
        lent.end(&answer);
        answer
    }
    .await;
    let Ok((address, port)) = asked else { return false };
    if i32::from(options.get_port()) != port {
        return true;
    }
    let Some(address) = address else { return false };
    let resolved = tokio::net::lookup_host((options.get_host(), options.get_port())).await;
    resolved.is_ok_and(|mut known| !known.any(|known| known.ip().to_string() == address))
}

/// Listens until the connection breaks.
async fn relay(pool: &PgPool, wakeup: &Wakeup) -> sqlx::Result<()> {
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

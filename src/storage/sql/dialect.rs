//! The few things the two databases do differently.

use sqlx::database::HasStatementCache;
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{Database, FromRow, PgConnection, Postgres, Sqlite, SqliteConnection};
use uuid::Uuid;

use crate::storage::Result;

/// A hint to the other replicas that there is something to do, sent when the transaction commits.
pub(super) trait Announce {
    async fn announce(&mut self) -> Result<()>;
}

impl Announce for SqliteConnection {
    /// There are no other replicas.
    async fn announce(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Announce for PgConnection {
    async fn announce(&mut self) -> Result<()> {
        query("NOTIFY batchwright").execute(self).await?;
        Ok(())
    }
}

/// Holding a lease while something is written in its name.
pub(super) trait Locks {
    /// Whether the lease is held with this token, which then stays so until the transaction ends.
    async fn lock_lease(&mut self, id: Uuid, token: i64) -> Result<bool>;
}

impl Locks for SqliteConnection {
    /// There is one writer, and this is it.
    async fn lock_lease(&mut self, id: Uuid, token: i64) -> Result<bool> {
        const HELD: &str = "SELECT 1 FROM leases WHERE id = $1 AND token = $2";
        let held: Option<i32> = query_scalar(HELD).bind(id).bind(token).fetch_optional(self).await?;
        Ok(held.is_some())
    }
}

impl Locks for PgConnection {
    async fn lock_lease(&mut self, id: Uuid, token: i64) -> Result<bool> {
        const HELD: &str = "SELECT 1 FROM leases WHERE id = $1 AND token = $2 FOR UPDATE";
        let held: Option<i32> = query_scalar(HELD).bind(id).bind(token).fetch_optional(self).await?;
        Ok(held.is_some())
    }
}

/// Whether a connection keeps its statements prepared.
pub(super) trait Prepares: Database + HasStatementCache {
    const KEPT: bool;
}

impl Prepares for Sqlite {
    const KEPT: bool = true;
}

impl Prepares for Postgres {
    /// A prepared statement is state of a session, and behind a pooler the next transaction may have another session.
    const KEPT: bool = false;
}

/// As `sqlx::query`.
pub(super) fn query<'q, D: Prepares>(statement: &'static str) -> Query<'q, D, D::Arguments> {
    sqlx::query(statement).persistent(D::KEPT)
}

/// As `sqlx::query_as`.
pub(super) fn query_as<'q, D, O>(statement: &'static str) -> QueryAs<'q, D, O, D::Arguments>
where
    D: Prepares,
    O: for<'r> FromRow<'r, D::Row>,
{
    sqlx::query_as(statement).persistent(D::KEPT)
}

/// As `sqlx::query_scalar`.
pub(super) fn query_scalar<'q, D, O>(statement: &'static str) -> QueryScalar<'q, D, O, D::Arguments>
where
    D: Prepares,
    (O,): for<'r> FromRow<'r, D::Row>,
{
    sqlx::query_scalar(statement).persistent(D::KEPT)
}

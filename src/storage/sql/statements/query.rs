//! Sending statements: sqlx's three ways, and announcements.

use sqlx::FromRow;
use sqlx::query::{Query, QueryAs, QueryScalar};

use super::{ANNOUNCE, Conn, Database, KEEPS_STATEMENTS, Row};
use crate::storage::Result;

type Arguments = <Database as sqlx::Database>::Arguments;

/// As `sqlx::query`.
pub fn query<'q>(statement: &'static str) -> Query<'q, Database, Arguments> {
    sqlx::query(statement).persistent(KEEPS_STATEMENTS)
}

/// As `sqlx::query_as`.
pub fn query_as<'q, O>(statement: &'static str) -> QueryAs<'q, Database, O, Arguments>
where
    O: for<'r> FromRow<'r, Row>,
{
    sqlx::query_as(statement).persistent(KEEPS_STATEMENTS)
}

/// As `sqlx::query_scalar`.
pub fn query_scalar<'q, O>(statement: &'static str) -> QueryScalar<'q, Database, O, Arguments>
where
    (O,): for<'r> FromRow<'r, Row>,
{
    sqlx::query_scalar(statement).persistent(KEEPS_STATEMENTS)
}

/// Tells the other replicas, when the transaction commits, that there is something to do.
pub async fn announce(tx: &mut Conn) -> Result<()> {
    if let Some(statement) = ANNOUNCE {
        query(statement).execute(tx).await?;
    }
    Ok(())
}

//! The attempts of rows that were tried again.

use std::collections::BTreeMap;

use sqlx::QueryBuilder;

use super::Conn;
use super::query::query_scalar;
use super::steps::{ended_with, first_rows};
use crate::domain::attempts::RowAttempts;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::owner::Owner;
use crate::storage::Result;

const KEEP: &str = "INSERT INTO row_attempts (batch_id, row, attempts) ";

// A row has one result, so none of its attempts are kept yet. If some were, the result is not to fail for them.
const OR_LEAVE: &str = " ON CONFLICT (batch_id, row) DO NOTHING";

/// Rows of one statement.
const TOGETHER: usize = 64;

const OF_ROW: &str = "
    SELECT attempts
    FROM row_attempts
    WHERE EXISTS (SELECT 1 FROM batches WHERE owner = $1 AND id = $2) AND batch_id = $2 AND row = $3";

/// A batch that has attempts and ended long ago, and the deletion of those of its first rows.
pub const ENDED_WITH: &str = ended_with!("row_attempts");
pub const FORGET: &str = concat!("DELETE FROM row_attempts ", first_rows!("row_attempts"));

/// Keeps the attempts of rows with their results.
pub async fn keep(tx: &mut Conn, batch: BatchId, attempts: &BTreeMap<u32, RowAttempts>) -> Result<()> {
    let attempts: Vec<_> = attempts.iter().collect();
    for together in attempts.chunks(TOGETHER) {
        let mut query = QueryBuilder::new(KEEP);
        query.push_values(together, |mut values, (row, attempts)| {
            let kept = serde_json::to_string(attempts).expect("numbers, texts and lists of them");
            values.push_bind(batch.0).push_bind(i64::from(**row)).push_bind(kept);
        });
        // Its text differs with how many there are, so that it is not worth keeping prepared.
        query.push(OR_LEAVE).build().persistent(false).execute(&mut *tx).await?;
    }
    Ok(())
}

pub async fn of_row(conn: &mut Conn, owner: &Owner, row: RequestId) -> Result<Option<String>> {
    let kept = query_scalar(OF_ROW).bind(owner.as_str()).bind(row.batch.0).bind(i64::from(row.row));
    Ok(kept.fetch_optional(conn).await?)
}

//! The steps of rows that take more than one call.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::query::{query, query_as, query_scalar};
use super::{Conn, attempts, leases};
use crate::domain::ids::RequestId;
use crate::domain::lease::LeaseHold;
use crate::domain::owner::Owner;
use crate::domain::response::{StepBody, StepState};
use crate::domain::time::Timestamp;
use crate::storage::sql::End;
use crate::storage::sql::steps::StepRow;
use crate::storage::{Result, StepWrite};

const WRITE: &str = "
    INSERT INTO response_steps
        (batch_id, row, seq, path, call_id, state, attempts, request, response, error, started_at, ended_at) ";

// What has ended well stays as it is.
const OR_UPDATE: &str = "
    ON CONFLICT (batch_id, row, seq) DO UPDATE
    SET state = excluded.state, attempts = excluded.attempts, response = excluded.response, error = excluded.error,
        started_at = excluded.started_at, ended_at = excluded.ended_at
    WHERE response_steps.state <> 'completed'";

/// Steps of one statement: as many as make its round trip cheap, and few beside the values a statement can have.
const TOGETHER: usize = 64;

const OF_ROW: &str = "
    SELECT seq, path, call_id, state, attempts, request, response, error, started_at, ended_at
    FROM response_steps
    WHERE EXISTS (SELECT 1 FROM batches WHERE owner = $1 AND id = $2) AND batch_id = $2 AND row = $3
    ORDER BY seq";

/// A batch that has rows in a table and ended long ago. The batches with such rows are found one after the other by
/// their ids: few, however many rows there are.
macro_rules! ended_with {
    ($table:literal) => {
        concat!(
            "WITH RECURSIVE kept (batch_id) AS (
                SELECT (SELECT batch_id FROM ",
            $table,
            " ORDER BY batch_id LIMIT 1)
                UNION ALL
                SELECT (
                    SELECT next.batch_id FROM ",
            $table,
            " AS next
                    WHERE next.batch_id > kept.batch_id ORDER BY next.batch_id LIMIT 1
                )
                FROM kept
                WHERE kept.batch_id IS NOT NULL
            )
            SELECT batches.id
            FROM kept JOIN batches ON batches.id = kept.batch_id
            WHERE COALESCE(batches.completed_at, batches.expired_at, batches.cancelled_at) <= $1
            LIMIT 1"
        )
    };
}

/// What a table has of the first rows of a batch, as many rows as are given.
macro_rules! first_rows {
    ($table:literal) => {
        concat!(
            "WHERE batch_id = $1 AND row <= (
                SELECT MAX(first.row)
                FROM (SELECT DISTINCT row FROM ",
            $table,
            " WHERE batch_id = $1 ORDER BY row LIMIT $2) AS first
            )"
        )
    };
}

pub(super) use {ended_with, first_rows};

const ENDED_WITH_STEPS: &str = ended_with!("response_steps");
const FORGET: &str = concat!("DELETE FROM response_steps ", first_rows!("response_steps"));

/// PostgreSQL's texts have no NUL. JSON needs none: it spells it.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Of each step the write that stays: the one that ends it well, or else the last. A statement cannot write a row
/// twice.
fn staying<'a>(writes: impl Iterator<Item = &'a StepWrite>) -> Vec<&'a StepWrite> {
    let mut staying = BTreeMap::new();
    for write in writes {
        let known = staying.entry((write.row, write.step.seq)).or_insert(write);
        if known.step.state != StepState::Completed {
            *known = write;
        }
    }
    staying.into_values().collect()
}

pub async fn record(tx: &mut Conn, writes: &[StepWrite]) -> Result<End<BTreeSet<LeaseHold>>> {
    // In the order in which a flush locks them, so that the two do not wait for each other.
    let held: BTreeSet<_> = writes.iter().map(|write| (write.row.batch, write.lease)).collect();
    let mut lost = BTreeSet::new();
    for (_, lease) in held {
        if !leases::lock(tx, lease).await? {
            lost.insert(lease);
        }
    }
    let staying = staying(writes.iter().filter(|write| !lost.contains(&write.lease)));
    for together in staying.chunks(TOGETHER) {
        insert(tx, together).await?;
    }
    Ok(End::Commit(lost))
}

/// One round trip for all of them: it takes longer than the writing.
async fn insert(tx: &mut Conn, writes: &[&StepWrite]) -> Result<()> {
    let mut query = QueryBuilder::new(WRITE);
    query.push_values(writes, |mut values, write| {
        let step = &write.step;
        let call_id = match &step.body {
            StepBody::ModelCall(_) => None,
            StepBody::ToolCall(call, _) => Some(text(&call.call_id)),
        };
        values
            .push_bind(write.row.batch.0)
            .push_bind(i64::from(write.row.row))
            .push_bind(i64::from(step.seq))
            .push_bind(step.path.to_string())
            .push_bind(call_id)
            .push_bind(step.state.as_str())
            .push_bind(i64::from(step.attempts))
            .push_bind(step.request_json())
            .push_bind(step.response_json())
            .push_bind(step.error.as_deref().map(text))
            .push_bind(step.started_at.0)
            .push_bind(step.ended_at.map(|at| at.0));
    });
    // Its text differs with how many there are, so that it is not worth keeping prepared.
    query.push(OR_UPDATE).build().persistent(false).execute(tx).await?;
    Ok(())
}

pub async fn of_row(conn: &mut Conn, owner: &Owner, row: RequestId) -> Result<Vec<StepRow>> {
    let steps = query_as(OF_ROW).bind(owner.as_str()).bind(row.batch.0).bind(i64::from(row.row));
    Ok(steps.fetch_all(conn).await?)
}

/// The steps first, and once there are none the attempts.
pub async fn forget(tx: &mut Conn, ended_before: Timestamp, rows: u32) -> Result<End<u64>> {
    for (ended_with, forget) in [(ENDED_WITH_STEPS, FORGET), (attempts::ENDED_WITH, attempts::FORGET)] {
        let batch: Option<Uuid> = query_scalar(ended_with).bind(ended_before.0).fetch_optional(&mut *tx).await?;
        if let Some(batch) = batch {
            let forgotten = query(forget).bind(batch).bind(i64::from(rows)).execute(tx).await?;
            return Ok(End::Commit(forgotten.rows_affected()));
        }
    }
    Ok(End::Commit(0))
}

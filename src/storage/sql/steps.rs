//! The steps of rows that take more than one call.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sqlx::QueryBuilder;
use uuid::Uuid;

use super::dialect::{Locks as _, query, query_as, query_scalar};
use super::{End, SqlStorage, corrupt, in_write, on_reader};
use crate::domain::ids::RequestId;
use crate::domain::lease::FencedLease;
use crate::domain::response::{Step, StepBody, StepPath, StepState};
use crate::domain::time::Timestamp;
use crate::storage::{Result, StepStore, StepWrite, StorageError};

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
    WHERE batch_id = $1 AND row = $2
    ORDER BY seq";

// The batches that have steps, found one after the other by their ids: few, however many steps there are.
const ENDED_WITH_STEPS: &str = "
    WITH RECURSIVE kept (batch_id) AS (
        SELECT (SELECT batch_id FROM response_steps ORDER BY batch_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT next.batch_id FROM response_steps AS next
            WHERE next.batch_id > kept.batch_id ORDER BY next.batch_id LIMIT 1
        )
        FROM kept
        WHERE kept.batch_id IS NOT NULL
    )
    SELECT batches.id
    FROM kept JOIN batches ON batches.id = kept.batch_id
    WHERE COALESCE(batches.completed_at, batches.expired_at, batches.cancelled_at) <= $1
    LIMIT 1";

// The steps of the first rows, as many rows as are given.
const FORGET: &str = "
    DELETE FROM response_steps
    WHERE batch_id = $1 AND row <= (
        SELECT MAX(first.row)
        FROM (SELECT DISTINCT row FROM response_steps WHERE batch_id = $1 ORDER BY row LIMIT $2) AS first
    )";

#[derive(sqlx::FromRow)]
struct StepRow {
    seq: i64,
    path: String,
    call_id: Option<String>,
    state: String,
    attempts: i64,
    request: Option<String>,
    response: Option<String>,
    error: Option<String>,
    started_at: i64,
    ended_at: Option<i64>,
}

impl StepRow {
    fn read(self) -> Option<Step> {
        Some(Step {
            seq: u32::try_from(self.seq).ok()?,
            path: StepPath::parse(&self.path)?,
            body: StepBody::of_kept(self.call_id, self.request.as_deref(), self.response.as_deref())?,
            state: StepState::parse(&self.state)?,
            attempts: u32::try_from(self.attempts).unwrap_or(u32::MAX),
            error: self.error,
            started_at: Timestamp(self.started_at),
            ended_at: self.ended_at.map(Timestamp),
        })
    }
}

/// PostgreSQL's texts have no NUL. JSON needs none: it spells it.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Of each step the write that stays: the one that ends it well, or else the last. A statement cannot write a row twice.
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

#[async_trait]
impl StepStore for SqlStorage {
    async fn record_steps(&self, writes: &[StepWrite]) -> Result<BTreeSet<FencedLease>> {
        // In the order in which a flush locks them, so that the two do not wait for each other.
        let leases: BTreeSet<_> = writes.iter().map(|write| (write.row.batch, write.lease)).collect();
        in_write!(self.db, tx => {
            let mut lost = BTreeSet::new();
            for (_, lease) in &leases {
                if !tx.lock_lease(lease.id.0, lease.token).await? {
                    lost.insert(*lease);
                }
            }
            let held = staying(writes.iter().filter(|write| !lost.contains(&write.lease)));
            for together in held.chunks(TOGETHER) {
                // One round trip for all of them: it takes longer than the writing.
                let mut query = QueryBuilder::new(WRITE);
                query.push_values(together, |mut values, write| {
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
                query.push(OR_UPDATE).build().persistent(false).execute(&mut *tx).await?;
            }
            End::Commit(lost)
        })
    }

    async fn steps(&self, row: RequestId) -> Result<Vec<Step>> {
        let rows: Vec<StepRow> = on_reader!(self.db, conn => {
            Ok(query_as(OF_ROW).bind(row.batch.0).bind(i64::from(row.row)).fetch_all(&mut *conn).await?)
        })?;
        let unreadable = || -> StorageError { corrupt("response_steps", "step", row) };
        rows.into_iter().map(|row| row.read().ok_or_else(unreadable)).collect()
    }

    async fn forget_steps(&self, ended_before: Timestamp, rows: u32) -> Result<u64> {
        in_write!(self.db, tx => {
            let batch: Option<Uuid> =
                query_scalar(ENDED_WITH_STEPS).bind(ended_before.0).fetch_optional(&mut *tx).await?;
            let forgotten = match batch {
                Some(batch) => query(FORGET).bind(batch).bind(i64::from(rows)).execute(&mut *tx).await?.rows_affected(),
                None => 0,
            };
            End::Commit(forgotten)
        })
    }
}

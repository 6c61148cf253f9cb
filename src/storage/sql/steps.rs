//! The steps of rows that take more than one call.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{SqlStorage, corrupt, in_write, on_reader};
use crate::domain::ids::RequestId;
use crate::domain::lease::LeaseHold;
use crate::domain::owner::Owner;
use crate::domain::response::{Step, StepBody, StepPath, StepState};
use crate::domain::time::Timestamp;
use crate::storage::{Result, StepStore, StepWrite};

#[derive(sqlx::FromRow)]
pub(super) struct StepRow {
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

#[async_trait]
impl StepStore for SqlStorage {
    async fn record_steps(&self, writes: &[StepWrite]) -> Result<BTreeSet<LeaseHold>> {
        in_write!(self.db, steps::record(writes))
    }

    async fn steps(&self, owner: &Owner, row: RequestId) -> Result<Vec<Step>> {
        let rows = on_reader!(self.db, steps::of_row(owner, row))?;
        let unreadable = || corrupt("response_steps", "step", row);
        rows.into_iter().map(|row| row.read().ok_or_else(unreadable)).collect()
    }

    async fn forget_steps(&self, ended_before: Timestamp, rows: u32) -> Result<u64> {
        in_write!(self.db, steps::forget(ended_before, rows))
    }
}

//! What those who wait for a batch ask: its statistics, and what the daemons do.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use async_trait::async_trait;

use uuid::Uuid;

use super::{SqlStorage, in_write, on_reader, to_u64};
use crate::domain::activity::{DaemonActivity, DaemonReport};
use crate::domain::batch::Batch;
use crate::domain::ids::{BatchId, DaemonId};
use crate::domain::owner::Owner;
use crate::domain::statistics::BatchStatistics;
use crate::storage::{ProgressStore, Result};

/// What a daemon told, and how many milliseconds ago it beat.
pub(super) type ReportRow = (Uuid, Option<String>, Option<i64>);

#[async_trait]
impl ProgressStore for SqlStorage {
    async fn batch_statistics(&self, owner: &Owner, id: BatchId) -> Result<BatchStatistics> {
        let stored = on_reader!(self.db, progress::statistics(owner, id))?;
        Ok(stored.as_deref().map(read).unwrap_or_default())
    }

    async fn models_owed(&self, owner: &Owner, id: BatchId, limit: u32) -> Result<Vec<String>> {
        on_reader!(self.db, progress::models_owed(owner, id, limit))
    }

    async fn tell_activity(&self, daemon: DaemonId, activity: &DaemonActivity) -> Result<()> {
        let activity = serde_json::to_string(activity).expect("numbers, texts and lists of them");
        in_write!(self.db, progress::tell(daemon, &activity))
    }

    async fn daemon_reports(&self, owner: &Owner, batches: &[&Batch]) -> Result<Vec<DaemonReport>> {
        let reports = on_reader!(self.db, progress::reports())?;
        let seen = batches.iter().filter(|batch| batch.owner == *owner).map(|batch| batch.id).collect::<HashSet<_>>();
        Ok(reports.into_iter().map(|row| report(row, |batch| seen.contains(&batch))).collect())
    }

    async fn models_in_progress(&self, owner: &Owner, limit: u32) -> Result<Vec<String>> {
        on_reader!(self.db, progress::models_in_progress(owner, limit))
    }

    async fn upstream_reports(&self, owner: &Owner) -> Result<Vec<DaemonReport>> {
        let reports = on_reader!(self.db, progress::reports())?;
        let mut reports: Vec<DaemonReport> = reports.into_iter().map(|row| report(row, |_| true)).collect();
        let told = reports.iter().flat_map(|report| &report.activity.batches).map(|batch| batch.id);
        let told: BTreeSet<BatchId> = told.collect();
        let owned = on_reader!(self.db, progress::owned(owner, &told))?;
        for report in &mut reports {
            report.activity.batches.retain(|batch| owned.contains(&batch.id.0));
        }
        Ok(reports)
    }
}

/// What a daemon told, without the batches that are not to be seen.
fn report((daemon, activity, age): ReportRow, sees: impl Fn(BatchId) -> bool) -> DaemonReport {
    let activity = activity.and_then(|activity| serde_json::from_str(&activity).ok());
    let mut activity: DaemonActivity = activity.unwrap_or_default();
    activity.batches.retain(|batch| sees(batch.id));
    DaemonReport { daemon: DaemonId(daemon), age: Duration::from_millis(age.map_or(0, to_u64)), activity }
}

/// Statistics as they were stored. What cannot be read is as good as none: no batch ends by them.
pub(super) fn read(stored: &str) -> BatchStatistics {
    serde_json::from_str(stored).unwrap_or_default()
}

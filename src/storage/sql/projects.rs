//! What projects use of what they may.

use std::collections::HashMap;

use async_trait::async_trait;
use uuid::Uuid;

use super::readable::readable;
use super::{SqlStorage, on_reader, to_u64};
use crate::domain::batch::Batch;
use crate::domain::ids::FileId;
use crate::domain::owner::Owner;
use crate::domain::project_limits::QueuedInput;
use crate::domain::time::Timestamp;
use crate::storage::{ProjectStore, Result};

/// Files whose sizes one statement asks for.
const TOGETHER: usize = 256;

/// A batch in progress that has rows without a result.
#[derive(sqlx::FromRow)]
pub(super) struct OwingRow {
    input_file_id: String,
    total: i64,
    ended: i64,
}

#[async_trait]
impl ProjectStore for SqlStorage {
    async fn queued_input(&self, owner: &Owner, limit: u32) -> Result<QueuedInput> {
        let owing = on_reader!(self.db, projects::owing(owner, limit))?;
        let mut files: Vec<Uuid> =
            owing.iter().filter_map(|batch| Some(FileId::parse(&batch.input_file_id)?.0)).collect();
        files.sort_unstable();
        files.dedup();
        let mut sizes: HashMap<Uuid, u64> = HashMap::new();
        for together in files.chunks(TOGETHER) {
            let found = on_reader!(self.db, projects::sizes(owner, together))?;
            sizes.extend(found.into_iter().map(|(id, bytes)| (id, to_u64(bytes))));
        }
        let queued = owing.iter().map(|batch| {
            let bytes = FileId::parse(&batch.input_file_id).and_then(|id| sizes.get(&id.0).copied()).unwrap_or(0);
            let total = to_u64(batch.total);
            QueuedInput::of_file(bytes, total, total.saturating_sub(to_u64(batch.ended)))
        });
        Ok(queued.fold(QueuedInput::default(), QueuedInput::plus))
    }

    async fn first_to_admit(&self, owner: &Owner) -> Result<Option<Batch>> {
        let rows = on_reader!(self.db, projects::first_to_admit(owner))?;
        Ok(readable(rows.into_iter().map(|row| row.read)).into_iter().next())
    }

    async fn stored_bytes(&self, owner: &Owner, now: Timestamp) -> Result<u64> {
        let [files, parts] = on_reader!(self.db, projects::stored_bytes(owner, now))?.map(to_u64);
        Ok(files.saturating_add(parts))
    }
}

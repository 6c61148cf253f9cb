//! The ledger: recording outcomes, and ending a batch.

use async_trait::async_trait;
use roaring::RoaringBitmap;

use super::{SqlStorage, corrupt, in_write, on_reader};
use crate::domain::attempts::RowAttempts;
use crate::domain::batch::Counts;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::owner::Owner;
use crate::domain::time::Timestamp;
use crate::storage::{Ending, Flush, Ledger, Recorded, Result, ResultParts, RowPart};

#[async_trait]
impl Ledger for SqlStorage {
    async fn record(&self, flush: &Flush, now: Timestamp) -> Result<Recorded> {
        let Some(first_blob) = flush.first_blob() else { return Ok(Recorded::Applied) };
        let recorded = in_write!(self.db, ledger::record(flush, first_blob, self.is_guarded(), now))?;
        if recorded == Recorded::Applied {
            return Ok(recorded);
        }
        // The commit may have been under way still when it was looked for. Then it is what refused this one, whose
        // locks waited for it, and it can be seen now.
        let is_known = on_reader!(self.db, ledger::is_recorded(first_blob))?;
        Ok(if is_known { Recorded::Applied } else { recorded })
    }

    async fn attempts(&self, owner: &Owner, row: RequestId) -> Result<Option<RowAttempts>> {
        let Some(kept) = on_reader!(self.db, attempts::of_row(owner, row))? else { return Ok(None) };
        serde_json::from_str(&kept).map(Some).map_err(|_| corrupt("row_attempts", "attempts", row))
    }

    async fn recorded_rows(&self, id: BatchId) -> Result<RoaringBitmap> {
        let mut recorded = RoaringBitmap::new();
        for rows in on_reader!(self.db, ledger::recorded_rows(id))? {
            recorded |= decode(&rows).ok_or_else(|| corrupt("file_parts", "rows", id))?;
        }
        Ok(recorded)
    }

    async fn part_of_row(&self, owner: &Owner, row: RequestId, now: Timestamp) -> Result<Option<RowPart>> {
        on_reader!(self.db, ledger::part_of_row(owner, row, now))
    }

    async fn result_parts(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<ResultParts> {
        on_reader!(self.db, ledger::result_parts(owner, id, now))
    }

    async fn recount(&self, id: BatchId, now: Timestamp) -> Result<()> {
        in_write!(self.db, ledger::recount(id, now))
    }

    async fn fence(&self, id: BatchId) -> Result<Option<Counts>> {
        in_write!(self.db, ledger::fence(id))
    }

    async fn finish(&self, ending: &Ending, now: Timestamp) -> Result<bool> {
        in_write!(self.db, ledger::finish(ending, &self.subscriptions, now))
    }
}

/// Row numbers as they are stored.
pub(super) fn encode(rows: &RoaringBitmap) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.serialized_size());
    rows.serialize_into(&mut bytes).expect("a Vec takes all");
    bytes
}

/// Row numbers as they were stored; `None` for what this program never stored.
pub(super) fn decode(stored: &[u8]) -> Option<RoaringBitmap> {
    RoaringBitmap::deserialize_from(stored).ok()
}

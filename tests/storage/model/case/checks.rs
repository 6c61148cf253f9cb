//! Merging, the end of a batch, and what must hold after every step and at the end.

use std::collections::BTreeSet;

use batchwright::domain::batch::Counts;
use batchwright::domain::file::FilePart;
use batchwright::domain::ids::{BlobId, FileId};
use batchwright::storage::{BatchStore as _, Ending, FileStore as _, Ledger as _, Result, Upkeep as _};
use rand::RngExt as _;

use super::Case;
use crate::given::{ERROR_LINE, OUTPUT_LINE, OWNER, USAGE_OF_A_ROW, ending, merged};

impl Case<'_> {
    /// Merges neighbouring parts of one of the files, maybe of those that were there when the daemon last looked.
    pub(super) async fn merge(&mut self, who: usize) -> Result<()> {
        let batch = self.storage.now(self.id).await?;
        let file = if self.random.random_bool(0.7) { batch.output_file_id } else { batch.error_file_id };
        let looked_up = (file, self.storage.tiered_parts(file).await?);
        let (file, parts) = match self.daemons[who].parts.take() {
            Some(stale) if self.random.random_bool(0.5) => stale,
            _ => looked_up.clone(),
        };
        if self.random.random_bool(0.5) {
            self.daemons[who].parts = Some(looked_up);
        }
        if parts.len() < 2 {
            return Ok(());
        }
        let length = self.random.random_range(2..=parts.len().min(4));
        let first = self.random.random_range(0..=parts.len() - length);
        let parts = &parts[first..first + length];

        let now_there = self.storage.tiered_parts(file).await?;
        let to = merged(parts);
        let is_merged = self.storage.merge_parts(file, parts, to, self.now).await?;

        assert_eq!(is_merged, parts.iter().all(|part| now_there.contains(part)));
        if is_merged {
            self.sources.insert(to.blob, parts.iter().map(|part| part.part).collect());
        }
        Ok(())
    }

    /// Ends the batch if it is due, unless the finisher crashes or the batch is called off between the two steps.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let Some(batch) = self.storage.to_finish(1).await?.pop() else { return Ok(()) };
        assert_eq!(batch.id, self.id);
        let Some(counts) = self.storage.fence(batch.id).await? else { return Ok(()) };
        self.leases.clear();
        let recorded = self.storage.recorded_rows(batch.id).await?;
        let owed: BTreeSet<u32> = (0..self.rows).filter(|row| !recorded.contains(*row)).collect();
        assert_eq!(counts.owed(), owed.len() as u64);
        match self.random.random_range(0..10) {
            0..2 => return Ok(()),
            2 => self.storage.cancel_batch(&OWNER, batch.id, self.now).await.map(drop)?,
            _ => {}
        }

        let unchanged = self.storage.now(batch.id).await?.status == batch.status;
        let finished = self.storage.finish(&ending(&batch, owed.clone()), self.now).await?;

        assert_eq!(finished, unchanged);
        if finished {
            self.never_ran = owed;
            let ended = self.storage.now(batch.id).await?;
            assert!(ended.status.is_terminal());
            self.end = Some(ended);
            let again = Ending { from: batch.status, ..ending(&batch, self.never_ran.clone()) };
            assert!(!self.storage.finish(&again, self.now).await?);
        }
        Ok(())
    }

    /// The ledger and the counters are what the storage said it recorded, and what has ended stays as it is.
    pub(super) async fn check(&mut self) -> Result<()> {
        let batch = self.storage.now(self.id).await?;
        let completed = self.recorded.values().filter(|completed| **completed).count() as u64;
        let failed = self.recorded.len() as u64 - completed;
        assert_eq!(batch.counts, Counts { total: u64::from(self.rows), completed, failed });
        assert_eq!(batch.usage.total_tokens, completed * USAGE_OF_A_ROW.total_tokens);
        let lines: BTreeSet<u32> = self.recorded.keys().chain(&self.never_ran).copied().collect();
        assert_eq!(self.storage.recorded_rows(self.id).await?.iter().collect::<BTreeSet<_>>(), lines);
        if let Some(end) = &self.end {
            assert_eq!(batch, *end);
        }
        let errors = failed + self.never_ran.len() as u64;
        self.check_bytes(0, batch.output_file_id, completed * OUTPUT_LINE).await?;
        self.check_bytes(1, batch.error_file_id, errors * ERROR_LINE).await
    }

    /// A file has the bytes of its lines, and those that could be seen before are where they were.
    async fn check_bytes(&mut self, no: usize, id: FileId, expected: u64) -> Result<()> {
        let parts = self.storage.parts_of(id).await?;
        let apart: Vec<FilePart> = parts.iter().flat_map(|part| self.taken_apart(*part)).collect();
        assert!(apart.starts_with(&self.seen[no]), "{apart:?} does not go on from {:?}", self.seen[no]);
        assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), expected);
        assert_eq!(apart.iter().map(|part| part.bytes).sum::<u64>(), expected);
        self.seen[no] = apart;
        Ok(())
    }

    /// The parts that were recorded of what they were merged into.
    pub(super) fn taken_apart(&self, part: FilePart) -> Vec<FilePart> {
        match self.sources.get(&part.blob) {
            Some(source) => source.iter().flat_map(|part| self.taken_apart(*part)).collect(),
            None => vec![part],
        }
    }

    /// Each row has a line in one of the two files, and the files have no other lines.
    pub(super) async fn check_files(&self) -> Result<()> {
        let batch = self.storage.now(self.id).await?;
        let mut lines = 0;
        for (id, line, shown) in [
            (batch.output_file_id, OUTPUT_LINE, batch.output_file()),
            (batch.error_file_id, ERROR_LINE, batch.error_file()),
        ] {
            let file = self.storage.file(&OWNER, id, self.now).await?;
            assert_eq!(file.as_ref().map(|file| file.id), shown);
            lines += file.map_or(0, |file| file.bytes / line);
        }
        assert_eq!(lines, u64::from(self.rows));
        let retired: Vec<BlobId> = self.sources.values().flatten().map(|part| part.blob).collect();
        assert_eq!(self.storage.orphans(&retired).await?, []);
        let covered: BTreeSet<u32> = self.recorded.keys().chain(&self.never_ran).copied().collect();
        assert_eq!(covered, (0..self.rows).collect());
        Ok(())
    }
}

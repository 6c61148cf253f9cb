//! Merging small parts: a slow batch makes thousands of them, and a file of many parts is slow to read.
//!
//! Parts are merged in tiers, as log-structured stores do it: [`MERGED`] neighbours of one tier become one part of the
//! next tier, which has their bytes end to end. A byte is written again once for each tier.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::timer::TickResult;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, FileId};
use crate::storage::blobs::{BlobError, FileBytes};
use crate::storage::{Storage, TieredPart};
use crate::sync::lock;

const EVERY: Duration = Duration::from_secs(1);
/// How many neighbours become one part. A file then has fewer parts than this of each tier, and seven tiers for a
/// million recorded parts.
const MERGED: usize = 8;
/// Parts are merged only if the result stays within this size, in bytes.
const LARGE: u64 = 256 << 20;

/// Most batches whose flushes are counted. At more of them all counts start anew, which leaves a few parts unmerged:
/// most batches end with fewer flushes than make a merge.
const KNOWN: usize = 10_000;

/// How many flushes each batch was in since its files were merged. The recorder counts, and the duty `compact` reads.
#[derive(Default)]
pub(in crate::daemon) struct FlushCounts(Mutex<HashMap<BatchId, usize>>);

impl FlushCounts {
    /// Notes that lines of a batch were recorded.
    pub(in crate::daemon) fn note(&self, batch: BatchId) {
        let mut flush_counts = lock(&self.0);
        if flush_counts.len() >= KNOWN {
            flush_counts.clear();
        }
        *flush_counts.entry(batch).or_default() += 1;
    }

    /// Notes that the parts of a batch could not be merged, so that it is due again.
    fn put_back(&self, batch: BatchId) {
        lock(&self.0).insert(batch, MERGED);
    }

    /// Takes out the batches whose files may have parts to merge, of those that may be tried. Their counts start anew.
    fn due(&self, may_be_tried: impl Fn(BatchId) -> bool) -> Vec<BatchId> {
        let mut flush_counts = lock(&self.0);
        flush_counts
            .extract_if(|batch, times| *times >= MERGED && may_be_tried(*batch))
            .map(|(batch, _)| batch)
            .collect()
    }
}

/// Merges parts of the files in which this daemon has recorded many.
pub(super) struct Compact<S> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) flush_counts: Arc<FlushCounts>,
    pub(super) items: Items<BatchId>,
}

#[async_trait]
impl<S: Storage> Duty for Compact<S> {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_woken(&self) -> bool {
        false
    }

    async fn tick(&self) -> TickResult {
        let due = self.flush_counts.due(|batch| self.items.is_due(batch));
        let found = due.clone().into_iter().map(|batch| (batch, Ok(())));
        let merged = self.items.each(found, 1, |batch, ()| merge_files(&self.shared, batch)).await;
        let well = merged.as_deref().unwrap_or_default();
        due.iter().filter(|batch| !well.contains(batch)).for_each(|batch| self.flush_counts.put_back(*batch));
        merged.map(drop)
    }
}

async fn merge_files<S: Storage>(shared: &DaemonCore<S>, batch: BatchId) -> TickResult {
    let Some(batch) = shared.storage.any_batch(batch).await? else { return Ok(()) };
    tokio::select! {
        // A merge that is dropped halfway leaves no trace: the daemon does not wait for it.
        () = shared.shutdown.stopping.cancelled() => Ok(()),
        // If one file cannot be merged, the other still is.
        (output, error) = async {
            (merge_all(shared, batch.output_file_id).await, merge_all(shared, batch.error_file_id).await)
        } => output.and(error),
    }
}

async fn merge_all<S: Storage>(shared: &DaemonCore<S>, file: FileId) -> TickResult {
    loop {
        let parts = shared.storage.tiered_parts(file).await?;
        let Some(range) = next_merge(&parts) else { return Ok(()) };
        let parts = &parts[range];
        let merged = write_merged(shared, parts).await?;
        if !shared.storage.merge_parts(file, parts, merged, shared.clock.now()).await? {
            // Another daemon has merged them.
            shared.blobs.delete(merged.blob).await?;
            return Ok(());
        }
        tracing::debug!(file_id = %file, parts = parts.len(), bytes = merged.bytes, "parts merged");
    }
}

/// The first [`MERGED`] neighbours of one tier whose sum is not too large.
fn next_merge(parts: &[TieredPart]) -> Option<Range<usize>> {
    let are_due = |window: &[TieredPart]| {
        let is_one_tier = window.iter().all(|part| part.tier == window[0].tier);
        is_one_tier && window.iter().map(|part| part.part.bytes).sum::<u64>() <= LARGE
    };
    let first = parts.windows(MERGED).position(are_due)?;
    Some(first..first + MERGED)
}

async fn write_merged<S>(shared: &DaemonCore<S>, parts: &[TieredPart]) -> Result<FilePart, BlobError> {
    let bytes = FileBytes::new(parts.iter().map(|part| part.part).collect());
    let mut writer = shared.blobs.writer().await?;
    let mut stream = std::pin::pin!(bytes.stream(&shared.blobs, 0..bytes.len()));
    while let Some(piece) = stream.try_next().await? {
        writer.write(piece).await?;
    }
    Ok(FilePart { blob: writer.finish().await?, bytes: bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BlobId;

    fn parts(tiers: &[i64]) -> Vec<TieredPart> {
        let part = |(no, tier)| TieredPart { no, part: FilePart { blob: BlobId::new(), bytes: 10 }, tier };
        (0..).zip(tiers.iter().copied()).map(part).collect()
    }

    #[test]
    fn a_file_never_has_many_parts() {
        let mut file = Vec::new();
        let mut most = 0;
        for no in 0..100_000 {
            file.push(TieredPart { no, part: FilePart { blob: BlobId::new(), bytes: 10 }, tier: 0 });
            while let Some(range) = next_merge(&file) {
                let merged = TieredPart { tier: file[range.start].tier + 1, ..file[range.start] };
                file.splice(range, [merged]);
            }
            most = most.max(file.len());
        }

        assert!(most < 50, "{most} parts");
    }

    #[test]
    fn only_neighbours_of_one_tier_are_merged() {
        assert_eq!(next_merge(&parts(&[0; 7])), None);
        assert_eq!(next_merge(&parts(&[0, 0, 0, 0, 1, 0, 0, 0, 0])), None);
        assert_eq!(next_merge(&parts(&[2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])), Some(3..11));
    }

    #[test]
    fn parts_are_not_merged_beyond_the_largest_size() {
        let mut file = parts(&[1; 8]);
        file[3].part.bytes = LARGE;

        assert_eq!(next_merge(&file), None);
    }
}

//! Merging small parts: a slow batch makes thousands of them, and a file of many parts is slow to read.
//!
//! In tiers, as log-structured stores do it: so many neighbours of one tier become one of the next, whose bytes are
//! theirs end to end. A byte is written again once for each tier.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt as _;

use super::context::Context;
use super::duty::Turn;
use super::items::Items;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, FileId};
use crate::storage::blobs::{BlobError, FileBytes};
use crate::storage::{Storage, TieredPart};

/// How many neighbours become one. A file has fewer than this many parts of each tier, and of a million that were
/// recorded seven tiers.
const MERGED: usize = 8;
/// What is this large is not made larger.
const LARGE: u64 = 256 << 20;

/// Batches that are counted at once.
const KNOWN: usize = 10_000;

/// How often each batch was recorded since its files were looked at. Written by the recorder.
#[derive(Default)]
pub(super) struct Recordings(Mutex<HashMap<BatchId, usize>>);

impl Recordings {
    /// Notes that lines of a batch were recorded.
    pub(super) fn note(&self, batch: BatchId) {
        let mut recordings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Most batches end with fewer than would be merged: forgetting how many costs a few parts more.
        if recordings.len() >= KNOWN {
            recordings.clear();
        }
        *recordings.entry(batch).or_default() += 1;
    }

    /// Notes that the parts of a batch could not be merged, so that it is due again.
    fn put_back(&self, batch: BatchId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(batch, MERGED);
    }

    /// The batches whose files may have parts to merge. They are not returned again until there are more.
    fn due(&self, may_be_tried: impl Fn(BatchId) -> bool) -> Vec<BatchId> {
        let mut recordings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recordings.extract_if(|batch, times| *times >= MERGED && may_be_tried(*batch)).map(|(batch, _)| batch).collect()
    }
}

/// Merges what this daemon has recorded in too many parts.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>, items: Arc<Items<BatchId>>) -> Turn {
    let due = context.recordings.due(|batch| items.is_due(batch));
    let found = due.clone().into_iter().map(|batch| (batch, Ok(())));
    let merged = items.each(found, 1, |batch, ()| merge_files(&context, batch)).await;
    let well = merged.as_deref().unwrap_or_default();
    due.iter().filter(|batch| !well.contains(batch)).for_each(|batch| context.recordings.put_back(*batch));
    merged.map(drop)
}

async fn merge_files<S: Storage, H, P>(context: &Context<S, H, P>, batch: BatchId) -> Turn {
    let Some(batch) = context.storage.batch(batch).await? else { return Ok(()) };
    tokio::select! {
        // What is half merged is nothing.
        () = context.stops.stopping.cancelled() => Ok(()),
        // A file that cannot be merged does not keep the other from it.
        (output, error) = async {
            (merge_all(context, batch.output_file_id).await, merge_all(context, batch.error_file_id).await)
        } => output.and(error),
    }
}

async fn merge_all<S: Storage, H, P>(context: &Context<S, H, P>, file: FileId) -> Turn {
    loop {
        let parts = context.storage.tiered_parts(file).await?;
        let Some(range) = next_merge(&parts) else { return Ok(()) };
        let parts = &parts[range];
        let merged = write_merged(context, parts).await?;
        if !context.storage.merge_parts(file, parts, merged, context.clock.now()).await? {
            // Another daemon has merged them.
            context.blobs.delete(merged.blob).await?;
            return Ok(());
        }
        tracing::debug!(file_id = %file, parts = parts.len(), bytes = merged.bytes, "parts merged");
    }
}

/// The first neighbours of one tier that are many enough to become one.
fn next_merge(parts: &[TieredPart]) -> Option<Range<usize>> {
    let are_due = |window: &[TieredPart]| {
        let is_one_tier = window.iter().all(|part| part.tier == window[0].tier);
        is_one_tier && window.iter().map(|part| part.part.bytes).sum::<u64>() <= LARGE
    };
    let first = parts.windows(MERGED).position(are_due)?;
    Some(first..first + MERGED)
}

async fn write_merged<S, H, P>(context: &Context<S, H, P>, parts: &[TieredPart]) -> Result<FilePart, BlobError> {
    let bytes = FileBytes::new(parts.iter().map(|part| part.part).collect());
    let mut writer = context.blobs.writer().await?;
    let mut stream = std::pin::pin!(bytes.stream(&context.blobs, 0..bytes.len()));
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
    fn what_is_large_stays_as_it_is() {
        let mut file = parts(&[1; 8]);
        file[3].part.bytes = LARGE;

        assert_eq!(next_merge(&file), None);
    }
}

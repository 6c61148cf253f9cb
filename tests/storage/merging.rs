//! Merging parts: a file stays what it is, in fewer pieces.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use batchwright::domain::batch::{Batch, Counts};
use batchwright::domain::file::{FilePart, Purpose};
use batchwright::domain::ids::{BlobId, DaemonId, FileId};
use batchwright::domain::time::Timestamp;
use batchwright::storage::{
    BatchStore as _, FileStore as _, Flush, Ledger as _, Recorded, Result, TieredPart, Upkeep as _,
};
use futures::future::join_all;

use crate::given::{OUTPUT_LINE, OWNER, START, TestStorage, after, ending, flush, merged, new_file, part};

on_both_databases!(
    parts_are_of_the_lowest_tier_as_they_are_recorded,
    neighbouring_parts_become_one_in_their_place,
    a_part_is_of_a_higher_tier_than_all_that_were_merged_into_it,
    a_merge_changes_neither_ledger_nor_counters,
    what_is_recorded_after_a_merge_is_the_last_part,
    the_parts_of_an_upload_can_be_merged,
    a_file_is_as_large_as_its_merged_parts_when_its_batch_has_ended,
    parts_that_were_merged_by_somebody_else_are_left_alone,
    parts_of_another_file_are_left_alone,
    no_parts_at_all_are_left_alone,
    one_of_several_who_merge_the_same_parts_wins,
    several_who_merge_parts_that_overlap_lose_nothing,
    merging_while_flushes_are_recorded_loses_nothing,
    a_flush_whose_part_was_merged_counts_once,
    what_was_merged_can_be_read_for_another_hour,
);

const HOUR: u64 = 3600;

/// A batch in progress whose output file has parts of one row, two rows, three and so on; and the flushes they are of.
async fn batch_of_parts(storage: &TestStorage, parts: u32) -> Result<(Batch, Vec<Flush>)> {
    let rows = parts * (parts + 1) / 2;
    let id = storage.running(&[rows + 1]).await?.id;
    let lease = storage.claimed(id, rows + 1, DaemonId::new()).await?;
    let mut flushes = Vec::new();
    let mut first = 0;
    for rows in 1..=parts {
        let flush = flush(&[(&lease, first..first + rows, 0..0)]);
        assert_eq!(storage.record(&flush, after(1)).await?, Recorded::Applied);
        flushes.push(flush);
        first += rows;
    }
    Ok((storage.now(id).await?, flushes))
}

/// Merges the parts of a file that have these places, and returns what they became.
async fn merge(storage: &TestStorage, file: FileId, places: Range<usize>, now: Timestamp) -> Result<FilePart> {
    let parts = storage.tiered_parts(file).await?;
    let merged = merged(&parts[places.clone()]);
    assert!(storage.merge_parts(file, &parts[places], merged, now).await?);
    Ok(merged)
}

/// The parts of a file without their numbers and tiers.
async fn bytes_of(storage: &TestStorage, file: FileId) -> Result<Vec<FilePart>> {
    let parts: Vec<FilePart> = storage.tiered_parts(file).await?.iter().map(|part| part.part).collect();
    assert_eq!(storage.parts_of(file).await?, parts);
    Ok(parts)
}

/// What each merged blob was made of.
type Sources = BTreeMap<BlobId, Vec<TieredPart>>;

/// Puts the parts that were recorded in the place of those they were merged into.
fn taken_apart(parts: &[TieredPart], sources: &Sources) -> Vec<FilePart> {
    let apart = |part: &TieredPart| match sources.get(&part.part.blob) {
        Some(source) => taken_apart(source, sources),
        None => vec![part.part],
    };
    parts.iter().flat_map(apart).collect()
}

async fn parts_are_of_the_lowest_tier_as_they_are_recorded(storage: TestStorage) -> Result<()> {
    let (batch, flushes) = batch_of_parts(&storage, 3).await?;

    let parts = storage.tiered_parts(batch.output_file_id).await?;

    let recorded = |(no, flush): (i64, &Flush)| {
        let part = flush.batches[&batch.id].output.as_ref().expect("it has output").part;
        TieredPart { no, part, tier: 0 }
    };
    assert_eq!(parts, (0..).zip(&flushes).map(recorded).collect::<Vec<_>>());
    assert_eq!(storage.tiered_parts(batch.error_file_id).await?, []);
    Ok(())
}

async fn neighbouring_parts_become_one_in_their_place(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 5).await?;
    let before = storage.tiered_parts(batch.output_file_id).await?;

    let merged = merge(&storage, batch.output_file_id, 1..4, after(2)).await?;

    let in_their_place = TieredPart { no: 1, part: merged, tier: 1 };
    assert_eq!(merged.bytes, (2 + 3 + 4) * OUTPUT_LINE);
    assert_eq!(storage.tiered_parts(batch.output_file_id).await?, [before[0], in_their_place, before[4]]);
    assert_eq!(bytes_of(&storage, batch.output_file_id).await?, [before[0].part, merged, before[4].part]);
    Ok(())
}

async fn a_part_is_of_a_higher_tier_than_all_that_were_merged_into_it(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 6).await?;
    let tiers = async || -> Result<Vec<i64>> {
        Ok(storage.tiered_parts(batch.output_file_id).await?.iter().map(|part| part.tier).collect())
    };

    merge(&storage, batch.output_file_id, 0..2, after(2)).await?;
    merge(&storage, batch.output_file_id, 1..3, after(2)).await?;
    let merged_once = tiers().await?;
    merge(&storage, batch.output_file_id, 0..2, after(2)).await?;
    let merged_twice = tiers().await?;
    merge(&storage, batch.output_file_id, 0..2, after(2)).await?;

    assert_eq!((merged_once, merged_twice), (vec![1, 1, 0, 0], vec![2, 0, 0]));
    assert_eq!(tiers().await?, [3, 0]);
    Ok(())
}

async fn a_merge_changes_neither_ledger_nor_counters(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 4).await?;

    for places in [1..3, 0..3] {
        merge(&storage, batch.output_file_id, places, after(2)).await?;

        assert_eq!(storage.recorded_rows(batch.id).await?, (0..10).collect());
        assert_eq!(storage.now(batch.id).await?, batch);
    }
    Ok(())
}

async fn what_is_recorded_after_a_merge_is_the_last_part(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[6]).await?;
    let lease = storage.claimed(batch.id, 6, DaemonId::new()).await?;
    for row in 0..3 {
        assert_eq!(storage.record(&flush(&[(&lease, row..row + 1, 0..0)]), after(1)).await?, Recorded::Applied);
    }
    let merged = merge(&storage, batch.output_file_id, 0..3, after(2)).await?;

    let next = flush(&[(&lease, 3..5, 0..0)]);
    assert_eq!(storage.record(&next, after(3)).await?, Recorded::Applied);

    let last = next.batches[&batch.id].output.as_ref().expect("it has output").part;
    assert_eq!(bytes_of(&storage, batch.output_file_id).await?, [merged, last]);
    assert_eq!(storage.recorded_rows(batch.id).await?, (0..5).collect());
    Ok(())
}

async fn the_parts_of_an_upload_can_be_merged(storage: TestStorage) -> Result<()> {
    let upload = new_file(Purpose::Batch, START);
    storage.create_file(&OWNER, &upload).await?;

    let merged = merge(&storage, upload.file.id, 0..2, after(1)).await?;

    assert_eq!(storage.file_parts(&OWNER, upload.file.id).await?, [merged]);
    assert_eq!(storage.file(&OWNER, upload.file.id, after(1)).await?, Some(upload.file));
    Ok(())
}

async fn a_file_is_as_large_as_its_merged_parts_when_its_batch_has_ended(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 3).await?;
    merge(&storage, batch.output_file_id, 0..2, after(2)).await?;
    storage.cancel_batch(&OWNER, batch.id, after(3)).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");

    assert!(storage.finish(&ending(&storage.now(batch.id).await?, [6]), after(4)).await?);

    let file = storage.file(&OWNER, batch.output_file_id, after(4)).await?.expect("it has lines");
    assert_eq!(file.bytes, 6 * OUTPUT_LINE);
    assert_eq!(storage.recorded_rows(batch.id).await?, (0..7).collect());
    Ok(())
}

async fn parts_that_were_merged_by_somebody_else_are_left_alone(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 5).await?;
    let stale = storage.tiered_parts(batch.output_file_id).await?;
    merge(&storage, batch.output_file_id, 2..4, after(2)).await?;
    let before = storage.tiered_parts(batch.output_file_id).await?;

    for places in [0..3, 2..4, 3..5, 0..5] {
        let parts = &stale[places];
        assert!(!storage.merge_parts(batch.output_file_id, parts, merged(parts), after(3)).await?);
    }

    assert_eq!(storage.tiered_parts(batch.output_file_id).await?, before);
    assert_eq!(storage.recorded_rows(batch.id).await?, (0..15).collect());
    assert_eq!(storage.retired(after(2 * HOUR), 10).await?.len(), 2);
    Ok(())
}

async fn parts_of_another_file_are_left_alone(storage: TestStorage) -> Result<()> {
    let (one, _) = batch_of_parts(&storage, 2).await?;
    let (other, _) = batch_of_parts(&storage, 2).await?;
    let parts = storage.tiered_parts(other.output_file_id).await?;

    assert!(!storage.merge_parts(one.output_file_id, &parts, merged(&parts), after(2)).await?);

    assert_eq!(storage.tiered_parts(other.output_file_id).await?, parts);
    assert_eq!(storage.tiered_parts(one.output_file_id).await?.len(), 2);
    Ok(())
}

async fn no_parts_at_all_are_left_alone(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 1).await?;

    assert!(!storage.merge_parts(batch.output_file_id, &[], part(0), after(2)).await?);

    assert_eq!(storage.tiered_parts(batch.output_file_id).await?.len(), 1);
    Ok(())
}

async fn one_of_several_who_merge_the_same_parts_wins(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 4).await?;
    let parts = storage.tiered_parts(batch.output_file_id).await?;
    let merged: Vec<FilePart> = (0..8).map(|_| merged(&parts)).collect();

    let mergers = merged.iter().map(|merged| storage.merge_parts(batch.output_file_id, &parts, *merged, after(2)));
    let answers: Vec<bool> = join_all(mergers).await.into_iter().collect::<Result<_>>()?;

    let won: Vec<FilePart> =
        merged.into_iter().zip(answers).filter(|(_, won)| *won).map(|(merged, _)| merged).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(bytes_of(&storage, batch.output_file_id).await?, won);
    assert_eq!(storage.recorded_rows(batch.id).await?, (0..10).collect());
    assert_eq!(storage.retired(after(2 * HOUR), 10).await?.len(), 4);
    Ok(())
}

async fn several_who_merge_parts_that_overlap_lose_nothing(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 6).await?;
    let parts = storage.tiered_parts(batch.output_file_id).await?;
    let tried: Vec<(&[TieredPart], FilePart)> = [0..2, 1..3, 2..4, 3..5, 4..6, 0..4, 2..6, 0..6]
        .map(|places| (&parts[places.clone()], merged(&parts[places])))
        .into();

    let mergers = tried.iter().map(|(parts, to)| storage.merge_parts(batch.output_file_id, parts, *to, after(2)));
    let answers: Vec<bool> = join_all(mergers).await.into_iter().collect::<Result<_>>()?;

    let won = tried.iter().zip(&answers).filter(|(_, won)| **won);
    let sources: Sources = won.map(|((parts, to), _)| (to.blob, parts.to_vec())).collect();
    let after_all = storage.tiered_parts(batch.output_file_id).await?;
    assert!(!sources.is_empty());
    assert_eq!(taken_apart(&after_all, &sources), taken_apart(&parts, &Sources::new()));
    assert!(after_all.iter().filter(|part| part.tier > 0).count() == sources.len());
    assert_eq!(storage.recorded_rows(batch.id).await?, (0..21).collect());
    Ok(())
}

async fn merging_while_flushes_are_recorded_loses_nothing(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[60]).await?;
    let lease = storage.claimed(batch.id, 60, DaemonId::new()).await?;
    let flushes: Vec<Flush> = (0..60).map(|row| flush(&[(&lease, row..row + 1, 0..0)])).collect();
    let is_recorded = Cell::new(false);
    let record_all = async {
        for flush in &flushes {
            assert_eq!(storage.record(flush, after(1)).await?, Recorded::Applied);
        }
        is_recorded.set(true);
        Ok(())
    };
    let merge_all = async || -> Result<Sources> {
        let mut sources = Sources::new();
        loop {
            let is_last = is_recorded.get();
            let parts = storage.tiered_parts(batch.output_file_id).await?;
            let next = parts.windows(3).find(|three| three.iter().all(|part| part.tier == three[0].tier));
            match next {
                None if is_last => return Ok(sources),
                None => {}
                Some(three) => {
                    let to = merged(three);
                    let is_merged = storage.merge_parts(batch.output_file_id, three, to, after(2)).await?;
                    sources.extend(is_merged.then(|| (to.blob, three.to_vec())));
                }
            }
        }
    };

    let (recorded, one, other): (Result<()>, _, _) = tokio::join!(record_all, merge_all(), merge_all());

    recorded?;
    let mut sources = one?;
    sources.append(&mut other?);
    let parts = storage.tiered_parts(batch.output_file_id).await?;
    let output = |flush: &Flush| flush.batches[&batch.id].output.as_ref().expect("it has output").part;
    assert!(parts.len() <= 8, "two of each of four tiers at most");
    assert_eq!(taken_apart(&parts, &sources), flushes.iter().map(output).collect::<Vec<_>>());
    assert_eq!(storage.now(batch.id).await?.counts, Counts { total: 60, completed: 60, failed: 0 });
    assert_eq!(storage.recorded_rows(batch.id).await?, (0..60).collect());
    Ok(())
}

async fn a_flush_whose_part_was_merged_counts_once(storage: TestStorage) -> Result<()> {
    let (batch, flushes) = batch_of_parts(&storage, 4).await?;

    // Merged once, and then what it was merged into once more.
    for places in [0..2, 0..3] {
        merge(&storage, batch.output_file_id, places, after(2)).await?;
        let before = storage.tiered_parts(batch.output_file_id).await?;

        for flush in &flushes {
            assert_eq!(storage.record(flush, after(3)).await?, Recorded::Applied);
        }

        assert_eq!(storage.tiered_parts(batch.output_file_id).await?, before);
        assert_eq!(storage.recorded_rows(batch.id).await?, (0..10).collect());
        assert_eq!(storage.now(batch.id).await?, batch);
    }
    Ok(())
}

async fn what_was_merged_can_be_read_for_another_hour(storage: TestStorage) -> Result<()> {
    let (batch, _) = batch_of_parts(&storage, 4).await?;
    let parts = bytes_of(&storage, batch.output_file_id).await?;
    let merged = merge(&storage, batch.output_file_id, 0..3, after(10)).await?;
    let then = after(10 + HOUR);
    let retired =
        async |now, limit| -> Result<BTreeSet<BlobId>> { Ok(storage.retired(now, limit).await?.into_iter().collect()) };

    let just_before = retired(Timestamp(then.0 - 1), 10).await?;
    let first_two = retired(then, 2).await?;
    let all = retired(then, 10).await?;
    storage.forget_blobs(&first_two.iter().copied().collect::<Vec<_>>()).await?;

    assert_eq!(just_before, BTreeSet::new());
    assert_eq!(first_two.len(), 2);
    assert_eq!(all, parts[..3].iter().map(|part| part.blob).collect());
    assert_eq!(retired(then, 10).await?, &all - &first_two);
    assert_eq!(bytes_of(&storage, batch.output_file_id).await?, [merged, parts[3]]);
    Ok(())
}

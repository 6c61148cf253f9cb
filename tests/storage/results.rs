//! The parts of result files, while their batch runs and after.

use batchwright::domain::batch::Batch;
use batchwright::domain::file::FilePart;
use batchwright::domain::ids::{BatchId, DaemonId};
use batchwright::storage::{
    BatchStore as _, Ending, FileStore as _, Flush, Ledger as _, Recorded, Result, ResultParts, Upkeep as _,
};

use crate::given::{OWNER, TestStorage, after, ending, flush, merged};

on_both_databases!(
    what_is_recorded_is_read_while_the_batch_runs_and_after,
    the_parts_of_a_merged_file_are_in_order,
    a_file_that_was_deleted_has_no_parts_and_the_other_keeps_its_own,
    a_file_that_has_expired_has_no_parts,
    a_batch_that_is_not_there_has_no_results,
);

fn part_of(flush: &Flush, batch: &Batch, is_output: bool) -> FilePart {
    let recorded = &flush.batches[&batch.id];
    let part = if is_output { &recorded.output } else { &recorded.error };
    part.as_ref().expect("it has one").part
}

/// A batch that has ended, with a part in each of its files.
async fn ended(storage: &TestStorage) -> Result<(Batch, ResultParts)> {
    let id = storage.running(&[2]).await?.id;
    let lease = storage.claimed(id, 2, DaemonId::new()).await?;
    let flush = flush(&[(&lease, 0..1, 1..2)]);
    assert_eq!(storage.record(&flush, after(1)).await?, Recorded::Applied);
    storage.fence(id).await?.expect("every row is recorded");
    let batch = storage.now(id).await?;
    let ending = Ending { files_expire_at: Some(after(10)), ..ending(&batch, []) };
    assert!(storage.finish(&ending, after(2)).await?);
    let parts =
        ResultParts { output: vec![part_of(&flush, &batch, true)], errors: vec![part_of(&flush, &batch, false)] };
    Ok((batch, parts))
}

async fn what_is_recorded_is_read_while_the_batch_runs_and_after(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[6]).await?;
    let lease = storage.claimed(batch.id, 5, DaemonId::new()).await?;
    let (first, second) = (flush(&[(&lease, 0..2, 2..3)]), flush(&[(&lease, 3..5, 0..0)]));
    let mut expected = ResultParts::default();

    assert_eq!(storage.result_parts(&OWNER, batch.id, after(1)).await?, expected);
    for flush in [&first, &second] {
        assert_eq!(storage.record(flush, after(1)).await?, Recorded::Applied);
        expected.output.push(part_of(flush, &batch, true));
        expected.errors = vec![part_of(&first, &batch, false)];
        assert_eq!(storage.result_parts(&OWNER, batch.id, after(1)).await?, expected);
    }
    storage.cancel_batch(&OWNER, batch.id, after(2)).await?;
    storage.fence(batch.id).await?.expect("no living daemon holds a lease");
    let ending = ending(&storage.now(batch.id).await?, [5]);
    assert!(storage.finish(&ending, after(3)).await?);

    expected.errors.push(ending.never_ran.expect("a row never ran").part);
    assert_eq!(storage.result_parts(&OWNER, batch.id, after(4)).await?, expected);
    Ok(())
}

async fn the_parts_of_a_merged_file_are_in_order(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[9]).await?;
    let lease = storage.claimed(batch.id, 8, DaemonId::new()).await?;
    for row in 0..8 {
        let flush = flush(&[(&lease, row..row + 1, 0..0)]);
        assert_eq!(storage.record(&flush, after(1)).await?, Recorded::Applied);
    }
    let parts = storage.tiered_parts(batch.output_file_id).await?;
    let merged = merged(&parts[2..5]);

    assert!(storage.merge_parts(batch.output_file_id, &parts[2..5], merged, after(2)).await?);

    let mut expected: Vec<FilePart> = parts.iter().map(|part| part.part).collect();
    expected.splice(2..5, [merged]);
    assert_eq!(storage.result_parts(&OWNER, batch.id, after(2)).await?.output, expected);
    Ok(())
}

async fn a_file_that_was_deleted_has_no_parts_and_the_other_keeps_its_own(storage: TestStorage) -> Result<()> {
    let (batch, parts) = ended(&storage).await?;

    assert!(storage.delete_file(&OWNER, batch.output_file_id, after(3)).await?);

    let expected = ResultParts { output: Vec::new(), ..parts };
    assert_eq!(storage.result_parts(&OWNER, batch.id, after(4)).await?, expected);
    Ok(())
}

async fn a_file_that_has_expired_has_no_parts(storage: TestStorage) -> Result<()> {
    let (batch, parts) = ended(&storage).await?;

    assert_eq!(storage.result_parts(&OWNER, batch.id, after(9)).await?, parts);
    assert_eq!(storage.result_parts(&OWNER, batch.id, after(10)).await?, ResultParts::default());
    Ok(())
}

async fn a_batch_that_is_not_there_has_no_results(storage: TestStorage) -> Result<()> {
    assert_eq!(storage.result_parts(&OWNER, BatchId::new(), after(1)).await?, ResultParts::default());
    Ok(())
}

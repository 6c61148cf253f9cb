//! What belongs to one owner is to any other as if it did not exist.

use std::fmt::Debug;
use std::sync::LazyLock;

use batchwright::domain::activity::{BatchActivity, DaemonActivity, DaemonReport};
use batchwright::domain::batch::{Batch, BatchStatus, NewBatch};
use batchwright::domain::file::{File, Purpose};
use batchwright::domain::ids::{BatchId, FileId, RequestId};
use batchwright::domain::lease::Lease;
use batchwright::domain::owner::Owner;
use batchwright::domain::page::{Order, PageRequest};
use batchwright::storage::{
    BatchStore as _, FileStore as _, LeaseStore as _, Ledger as _, MessageBatchStore as _, NewFile, ProgressStore as _,
    ProjectStore as _, Recorded, Result, StepStore as _, Upkeep as _,
};

use crate::attempts::{attempts, flush_with};
use crate::given::{OWNER, START, TestStorage, after, all, ending, flush, indexed_file, lanes, new_batch, new_file};
use crate::steps::{turn, write};

on_both_databases!(
    what_another_owner_asks_for_is_not_there,
    nothing_of_another_owner_is_changed,
    lists_have_what_their_owner_has,
    pages_do_not_go_on_from_what_another_owner_has,
    a_key_names_one_batch_of_each_owner,
    the_input_of_another_owner_is_not_there,
    a_batch_of_another_owner_keeps_no_file,
    result_files_belong_to_the_owner_of_their_batch,
    daemons_find_the_batches_of_every_owner,
);

static OTHER: LazyLock<Owner> = LazyLock::new(|| Owner::parse("other").expect("an id of an owner"));

/// A file of [`OWNER`], and a batch in progress that runs it: of its three rows the first has its line and attempts,
/// the second is held, with a step, and the third is not claimed.
struct Given {
    file: File,
    batch: Batch,
    lease: Lease,
}

impl Given {
    async fn on(storage: &TestStorage) -> Result<Self> {
        let file = indexed_file();
        storage.create_file(&OWNER, &file).await?;
        let key = Some(file.file.id.to_string());
        let new = NewBatch { idempotency_key: key, is_message_batch: true, ..batch_of(&file) };
        let batch = storage.created(&OWNER, &new, START).await?;
        assert!(storage.admit_batch(batch.id, &lanes(&[3]), START).await?);
        let daemon = storage.living_daemon().await?;
        let activity = DaemonActivity { batches: vec![BatchActivity::none(batch.id)], ..DaemonActivity::default() };
        storage.tell_activity(daemon, &activity).await?;
        let lease = storage.claimed(batch.id, 2, daemon).await?;
        let flush = flush_with(&lease, 1, &[(0, &attempts("No."))]);
        assert_eq!(storage.record(&flush, after(1)).await?, Recorded::Applied);
        assert!(storage.record_steps(&[write(&lease, 1, turn(0, "0"))]).await?.is_empty());
        Ok(Self { file: file.file, batch: storage.now(batch.id).await?, lease })
    }

    fn row(&self, row: u32) -> RequestId {
        RequestId { batch: self.batch.id, row }
    }
}

fn batch_of(file: &NewFile) -> NewBatch {
    NewBatch { input_file_id: file.file.id.to_string(), ..new_batch() }
}

fn with_key(key: &str) -> NewBatch {
    NewBatch { idempotency_key: Some(key.to_owned()), ..new_batch() }
}

/// The answer of every method that reads for an owner, by the name of the method: what the owner is told of `given`.
async fn answers(storage: &TestStorage, owner: &Owner, given: &Given) -> Result<Vec<(&'static str, String)>> {
    fn shown(answer: impl Debug) -> String {
        format!("{answer:?}")
    }
    let (file, batch) = (given.file.id, given.batch.id);
    Ok(vec![
        ("file", shown(storage.file(owner, file, after(2)).await?)),
        ("input_file", shown(storage.input_file(owner, file, after(2)).await?)),
        ("file_parts", shown(storage.file_parts(owner, file).await?)),
        ("file_report", shown(storage.file_report(owner, file).await?)),
        ("files", shown(storage.files(owner, &all(Order::Descending), None, after(2)).await?)),
        ("batch", shown(storage.batch(owner, batch).await?)),
        ("message_batch", shown(storage.message_batch(owner, batch).await?)),
        ("message_batches", shown(storage.message_batches(owner, Order::Descending, None, 10).await?)),
        ("batch_of_key", shown(storage.batch_of_key(owner, &file.to_string()).await?)),
        ("batches", shown(storage.batches(owner, &all(Order::Descending)).await?)),
        ("batches_with", shown(storage.batches_with(owner, &BatchStatus::ALL, None, 10).await?)),
        ("batches_closing_first", shown(storage.batches_closing_first(owner, 10).await?)),
        ("rows_in_progress", shown(storage.rows_in_progress(owner, 10).await?)),
        ("queued_input", shown(storage.queued_input(owner, 10).await?)),
        ("stored_bytes", shown(storage.stored_bytes(owner, after(2)).await?)),
        ("batch_input", shown(storage.batch_input(owner, batch).await?)),
        ("part_of_row", shown(storage.part_of_row(owner, given.row(0), after(2)).await?)),
        ("result_parts", shown(storage.result_parts(owner, batch, after(2)).await?)),
        ("is_held", shown(storage.is_held(owner, batch, 1).await?)),
        ("batch_statistics", shown(storage.batch_statistics(owner, batch).await?.throughput())),
        ("daemon_reports", shown(batches_told(storage.daemon_reports(owner, &[&given.batch]).await?))),
        ("upstream_reports", shown(batches_told(storage.upstream_reports(owner).await?))),
        ("models_in_progress", shown(storage.models_in_progress(owner, 10).await?)),
        ("models_owed", shown(storage.models_owed(owner, batch, 10).await?)),
        ("attempts", shown(storage.attempts(owner, given.row(0)).await?)),
        ("steps", shown(storage.steps(owner, given.row(1)).await?)),
        ("pause_batch", shown(storage.pause_batch(owner, batch, after(3)).await?)),
        ("resume_batch", shown(storage.resume_batch(owner, batch).await?)),
        ("cancel_batch", shown(storage.cancel_batch(owner, batch, after(3)).await?)),
        ("delete_file", shown(storage.delete_file(owner, file, after(3)).await?)),
    ])
}

fn batches_told(reports: Vec<DaemonReport>) -> Vec<BatchId> {
    reports.into_iter().flat_map(|report| report.activity.batches).map(|batch| batch.id).collect()
}

async fn what_another_owner_asks_for_is_not_there(storage: TestStorage) -> Result<()> {
    let nowhere = Given {
        file: new_file(Purpose::Batch, START).file,
        batch: Batch { id: BatchId::new(), ..storage.validating().await? },
        lease: Given::on(&storage).await?.lease,
    };
    let given = Given::on(&storage).await?;

    let to_the_other = answers(&storage, &OTHER, &given).await?;
    let of_nothing = answers(&storage, &OTHER, &nowhere).await?;
    let to_its_owner = answers(&storage, &OWNER, &given).await?;

    assert_eq!(to_the_other, of_nothing);
    for (other, own) in to_the_other.iter().zip(&to_its_owner) {
        assert_ne!(other, own, "the owner is told more");
    }
    Ok(())
}

async fn nothing_of_another_owner_is_changed(storage: TestStorage) -> Result<()> {
    let given = Given::on(&storage).await?;

    assert_eq!(storage.pause_batch(&OTHER, given.batch.id, after(2)).await?, None);
    assert_eq!(storage.resume_batch(&OTHER, given.batch.id).await?, None);
    assert_eq!(storage.cancel_batch(&OTHER, given.batch.id, after(2)).await?, None);
    assert!(!storage.delete_file(&OTHER, given.file.id, after(2)).await?);

    assert_eq!(storage.batch(&OWNER, given.batch.id).await?.as_ref(), Some(&given.batch));
    assert_eq!(storage.file(&OWNER, given.file.id, after(3)).await?, Some(given.file));
    assert_eq!(storage.recorded_rows(given.batch.id).await?.len(), 1);
    storage.give_back(given.lease.hold()).await
}

async fn lists_have_what_their_owner_has(storage: TestStorage) -> Result<()> {
    let (mut files, mut batches) = ([vec![], vec![]], [vec![], vec![]]);
    for _ in 0..3 {
        for (no, owner) in [&*OWNER, &*OTHER].into_iter().enumerate() {
            let new = indexed_file();
            storage.create_file(owner, &new).await?;
            files[no].push(new.file.id);
            batches[no].push(storage.created(owner, &batch_of(&new), START).await?.id);
        }
    }

    for (no, owner) in [&*OWNER, &*OTHER].into_iter().enumerate() {
        for order in [Order::Ascending, Order::Descending] {
            let listed = storage.files(owner, &all(order), Some(Purpose::Batch), START).await?.data;
            assert_eq!(in_order(order, listed.iter().map(|file| file.id)), files[no]);
            let listed = storage.batches(owner, &all(order)).await?.data;
            assert!(listed.iter().all(|batch| batch.owner == *owner));
            assert_eq!(in_order(order, listed.iter().map(|batch| batch.id)), batches[no]);
        }
    }
    Ok(())
}

/// Ids in ascending order that are listed in `order`.
fn in_order<Id: Ord>(order: Order, listed: impl Iterator<Item = Id>) -> Vec<Id> {
    let mut ids: Vec<Id> = listed.collect();
    if order == Order::Descending {
        ids.reverse();
    }
    ids
}

async fn pages_do_not_go_on_from_what_another_owner_has(storage: TestStorage) -> Result<()> {
    let given = Given::on(&storage).await?;
    let own = indexed_file();
    storage.create_file(&OTHER, &own).await?;
    storage.created(&OTHER, &batch_of(&own), START).await?;

    for order in [Order::Ascending, Order::Descending] {
        let (file, batch) = (given.file.id, given.batch.id);
        let page = PageRequest { after: Some(file), limit: 10, order };
        assert_eq!(storage.files(&OTHER, &page, None, START).await?.data, []);
        let page = PageRequest { after: Some(batch), limit: 10, order };
        assert_eq!(storage.batches(&OTHER, &page).await?.data, []);
    }
    Ok(())
}

async fn a_key_names_one_batch_of_each_owner(storage: TestStorage) -> Result<()> {
    let first = storage.created(&OWNER, &with_key("once"), START).await?;

    let others = storage.created(&OTHER, &with_key("once"), START).await?;

    assert_ne!(others.id, first.id);
    assert_eq!(storage.created(&OWNER, &with_key("once"), after(1)).await?, first);
    assert_eq!(storage.created(&OTHER, &with_key("once"), after(1)).await?, others);
    Ok(())
}

async fn the_input_of_another_owner_is_not_there(storage: TestStorage) -> Result<()> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;

    let others = storage.created(&OTHER, &batch_of(&file), START).await?;

    // What admits a batch asks for its input in the name of its owner.
    let waiting = storage.to_admit(10).await?.pop().expect("it waits");
    assert_eq!(waiting, others);
    assert_eq!(storage.file(&waiting.owner, file.file.id, START).await?, None);
    assert!(storage.batch_input(&OTHER, others.id).await?.is_none());
    assert!(storage.any_batch_input(others.id).await?.is_none());
    Ok(())
}

async fn a_batch_of_another_owner_keeps_no_file(storage: TestStorage) -> Result<()> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;
    storage.created(&OTHER, &batch_of(&file), START).await?;
    assert!(storage.delete_file(&OWNER, file.file.id, START).await?);

    assert_eq!(storage.retire_files(after(7200), 10).await?, 1);

    assert_eq!(storage.parts_of(file.file.id).await?, []);
    Ok(())
}

async fn result_files_belong_to_the_owner_of_their_batch(storage: TestStorage) -> Result<()> {
    let batch = storage.created(&OTHER, &new_batch(), START).await?;
    assert!(storage.admit_batch(batch.id, &lanes(&[2]), START).await?);
    let lease = storage.claimed(batch.id, 2, storage.living_daemon().await?).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..1, 1..2)]), after(1)).await?, Recorded::Applied);
    storage.fence(batch.id).await?.expect("every row is recorded");
    let batch = storage.any_batch(batch.id).await?.expect("it is there");

    assert!(storage.finish(&ending(&batch, []), after(2)).await?);

    let files: [FileId; 2] = [batch.output_file_id, batch.error_file_id];
    for id in files {
        assert!(storage.file(&OTHER, id, after(3)).await?.is_some());
        assert_eq!(storage.file_parts(&OTHER, id).await?.len(), 1);
        assert_eq!(storage.file(&OWNER, id, after(3)).await?, None);
        assert_eq!(storage.file_parts(&OWNER, id).await?, []);
    }
    Ok(())
}

async fn daemons_find_the_batches_of_every_owner(storage: TestStorage) -> Result<()> {
    for owner in [&*OWNER, &*OTHER] {
        let file = indexed_file();
        storage.create_file(owner, &file).await?;
        let batch = storage.created(owner, &batch_of(&file), START).await?;

        assert_eq!(storage.any_batch(batch.id).await?, Some(batch.clone()));
        let input = storage.any_batch_input(batch.id).await?.expect("the owner has it");
        assert_eq!((&input.owner, &input.parts), (owner, &file.parts));
    }
    assert_eq!(storage.to_admit(10).await?.len(), 2);
    Ok(())
}

//! Batches as Anthropic's Message Batches has them.

use std::sync::LazyLock;

use batchwright::domain::batch::{Batch, BatchStatus, NewBatch};
use batchwright::domain::file::Purpose;
use batchwright::domain::ids::BatchId;
use batchwright::domain::owner::Owner;
use batchwright::domain::page::Order;
use batchwright::storage::{BatchStore as _, FileStore as _, MessageBatchStore as _, Result};

use crate::given::{EVERY_STATUS, OWNER, START, TestStorage, after, indexed_file, new_batch};
use crate::plans::statements::{assert_found_by, sent};

on_both_databases!(
    only_message_batches_of_the_owner_are_found,
    pages_go_both_ways_from_an_id,
    a_batch_that_has_ended_is_deleted_with_its_files,
    a_batch_that_has_not_ended_is_not_deleted,
    message_batches_are_found_by_index,
);

static OTHER: LazyLock<Owner> = LazyLock::new(|| Owner::parse("other").expect("an id of an owner"));

fn message_batch() -> NewBatch {
    NewBatch { is_message_batch: true, ..new_batch() }
}

async fn listed(storage: &TestStorage, owner: &Owner) -> Result<Vec<BatchId>> {
    let page = storage.message_batches(owner, Order::Descending, None, 100).await?;
    Ok(page.data.iter().map(|batch: &Batch| batch.id).collect())
}

async fn only_message_batches_of_the_owner_are_found(storage: TestStorage) -> Result<()> {
    let other = storage.created(&OTHER, &message_batch(), START).await?;
    let plain = storage.created(&OWNER, &new_batch(), START).await?;
    let made = storage.created(&OWNER, &message_batch(), START).await?;

    assert_eq!(storage.message_batch(&OWNER, made.id).await?, Some(made.clone()));
    assert_eq!(storage.batch(&OWNER, made.id).await?, Some(made.clone()));
    for hidden in [other.id, plain.id, BatchId::new()] {
        assert_eq!(storage.message_batch(&OWNER, hidden).await?, None);
    }
    assert_eq!(listed(&storage, &OWNER).await?, [made.id]);
    assert_eq!(listed(&storage, &OTHER).await?, [other.id]);
    Ok(())
}

async fn pages_go_both_ways_from_an_id(storage: TestStorage) -> Result<()> {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(storage.created(&OWNER, &message_batch(), START).await?.id);
        storage.created(&OWNER, &new_batch(), START).await?;
    }
    let gone = BatchId::new();
    // The way, from where, how many, and what is found.
    let (down, up) = (Order::Descending, Order::Ascending);
    let cases = [
        (down, None, 2, vec![ids[4], ids[3]], true),
        (down, Some(ids[3]), 2, vec![ids[2], ids[1]], true),
        (down, Some(ids[3]), 3, vec![ids[2], ids[1], ids[0]], false),
        (up, Some(ids[1]), 2, vec![ids[2], ids[3]], true),
        (up, Some(ids[3]), 2, vec![ids[4]], false),
        (down, Some(gone), 1, vec![ids[4]], true),
        (up, Some(gone), 1, vec![], false),
    ];
    for (order, from, limit, expected, has_more) in cases {
        let page = storage.message_batches(&OWNER, order, from, limit).await?;
        let found: Vec<BatchId> = page.data.iter().map(|batch| batch.id).collect();
        assert_eq!((found, page.has_more), (expected, has_more), "{order:?} {from:?}");
    }
    Ok(())
}

async fn a_batch_that_has_ended_is_deleted_with_its_files(storage: TestStorage) -> Result<()> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;
    let new = NewBatch { input_file_id: file.file.id.to_string(), ..message_batch() };
    let batch = storage.made_in(BatchStatus::Cancelled, &new).await?;
    let outputs = [batch.output_file(), batch.error_file()].into_iter().flatten();

    assert!(!storage.delete_message_batch(&OTHER, batch.id, after(9)).await?);
    assert!(storage.delete_message_batch(&OWNER, batch.id, after(9)).await?);

    assert!(!storage.delete_message_batch(&OWNER, batch.id, after(9)).await?);
    assert_eq!(storage.message_batch(&OWNER, batch.id).await?, None);
    assert_eq!(listed(&storage, &OWNER).await?, []);
    assert!(storage.batch(&OWNER, batch.id).await?.is_some(), "OpenAI's API goes on listing it");
    for id in outputs.chain([file.file.id]) {
        assert_eq!(storage.file(&OWNER, id, after(10)).await?, None);
    }
    Ok(())
}

async fn a_batch_that_has_not_ended_is_not_deleted(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS {
        let batch = storage.made_in(status, &message_batch()).await?;

        let is_deleted = storage.delete_message_batch(&OWNER, batch.id, after(9)).await?;

        assert_eq!(is_deleted, status.is_terminal(), "{status}");
        assert_eq!(storage.message_batch(&OWNER, batch.id).await?.is_some(), !is_deleted, "{status}");
    }
    assert!(storage.files(&OWNER, &crate::given::all(Order::Ascending), Some(Purpose::Batch), START).await.is_ok());
    Ok(())
}

async fn message_batches_are_found_by_index(storage: TestStorage) -> Result<()> {
    let id = storage.created(&OWNER, &message_batch(), START).await?.id;
    let primary = ["autoindex_batches", "batches_pkey", "batches_by_owner", "message_batches"];

    for order in [Order::Ascending, Order::Descending] {
        let statements = sent(storage.message_batches(&OWNER, order, Some(id), 10)).await?;
        assert_found_by(&storage.place, &["message_batches"], statements).await;
    }
    let by_id =
        [sent(storage.message_batch(&OWNER, id)).await?, sent(storage.delete_message_batch(&OWNER, id, START)).await?];
    for statements in by_id {
        assert_found_by(&storage.place, &primary, statements).await;
    }
    Ok(())
}

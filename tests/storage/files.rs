//! Files: creation, reading, lists, deletion and expiry.

use batchwright::domain::batch::BatchError;
use batchwright::domain::file::{File, FilePart, Purpose};
use batchwright::domain::ids::{BlobId, FileId};
use batchwright::domain::page::{Order, PageRequest};
use batchwright::domain::report::{ModelRows, Report, UrlRows};
use batchwright::domain::time::Timestamp;
use batchwright::storage::{FileStore as _, Indexed, NewFile, Result};

use crate::given::{OWNER, START, TestStorage, after, all, new_file, part};

on_both_databases!(
    a_created_file_can_be_read,
    the_parts_of_a_file_are_in_order,
    a_report_is_read_as_it_was_written,
    a_file_without_a_report_has_none,
    a_file_that_never_was_is_not_found,
    a_file_vanishes_when_it_expires,
    a_deleted_file_vanishes,
    a_file_is_deleted_only_once,
    an_expired_file_cannot_be_deleted,
    the_parts_of_a_deleted_file_stay_for_the_batches_that_run_it,
    a_file_that_was_there_when_a_batch_was_created_is_its_input,
    files_are_listed_by_age_in_both_orders,
    files_of_the_same_age_keep_their_order,
    pages_visit_each_file_once_in_both_orders,
    pages_of_one_purpose_visit_each_of_its_files_once,
    a_page_knows_whether_the_list_goes_on,
    a_page_of_no_items_is_empty,
    a_page_after_an_unknown_file_is_empty,
    a_page_after_a_deleted_file_goes_on,
);

async fn created(storage: &TestStorage, created_at: Timestamp) -> Result<File> {
    let new = new_file(Purpose::Batch, created_at);
    storage.create_file(&OWNER, &new).await?;
    Ok(new.file)
}

/// The ids of all files, read in pages of `limit`.
async fn read_in_pages(
    storage: &TestStorage,
    order: Order,
    limit: u32,
    purpose: Option<Purpose>,
) -> Result<Vec<FileId>> {
    let mut ids = Vec::new();
    loop {
        let page = PageRequest { after: ids.last().copied(), limit, order };
        let page = storage.files(&OWNER, &page, purpose, START).await?;
        ids.extend(page.data.iter().map(|file| file.id));
        assert!(ids.len() <= 100, "the pages go round in circles");
        if !page.has_more {
            return Ok(ids);
        }
    }
}

async fn a_created_file_can_be_read(storage: TestStorage) -> Result<()> {
    let mut new = new_file(Purpose::FineTune, START);
    new.file.filename = String::from("Zeilen für später.jsonl");
    new.file.bytes = 5_000_000_000;
    new.file.expires_at = Some(after(60));

    storage.create_file(&OWNER, &new).await?;

    assert_eq!(storage.file(&OWNER, new.file.id, START).await?, Some(new.file));
    Ok(())
}

async fn the_parts_of_a_file_are_in_order(storage: TestStorage) -> Result<()> {
    // More than nine, and with ids that fall: neither the text of a number nor the id of a blob is their order.
    let mut parts: Vec<FilePart> = (0..12).map(part).collect();
    parts.reverse();
    let new = NewFile { parts: parts.clone(), ..new_file(Purpose::Batch, START) };

    storage.create_file(&OWNER, &new).await?;

    assert_eq!(storage.file_parts(&OWNER, new.file.id).await?, parts);
    Ok(())
}

async fn a_report_is_read_as_it_was_written(storage: TestStorage) -> Result<()> {
    let error = BatchError {
        code: "invalid_json_line".to_owned(),
        message: "Line 3 is \"no\" JSON: \u{1F600}".to_owned(),
        param: None,
        line: Some(3),
    };
    let report = Report {
        rows: 3,
        models: vec![ModelRows { model: "a".to_owned(), rows: 2 }, ModelRows { model: String::new(), rows: 1 }],
        other_models: vec![(2, 1)],
        urls: vec![UrlRows { url: "/v1/responses".to_owned(), rows: 3, lines: vec![1, 2, 3] }],
        errors: vec![error],
        error_count: 7,
    };
    let indexed = Indexed { index: BlobId::new(), report: report.clone() };
    let new = NewFile { indexed: Some(indexed), ..new_file(Purpose::Batch, START) };

    storage.create_file(&OWNER, &new).await?;

    assert_eq!(storage.file_report(&OWNER, new.file.id).await?, Some(report));
    Ok(())
}

async fn a_file_without_a_report_has_none(storage: TestStorage) -> Result<()> {
    let file = created(&storage, START).await?;

    assert_eq!(storage.file_report(&OWNER, file.id).await?, None);
    Ok(())
}

async fn a_file_that_never_was_is_not_found(storage: TestStorage) -> Result<()> {
    let id = FileId::new();

    assert_eq!(storage.file(&OWNER, id, START).await?, None);
    assert_eq!(storage.file_parts(&OWNER, id).await?, []);
    assert_eq!(storage.file_report(&OWNER, id).await?, None);
    assert!(!storage.delete_file(&OWNER, id, START).await?);
    Ok(())
}

async fn a_file_vanishes_when_it_expires(storage: TestStorage) -> Result<()> {
    let mut new = new_file(Purpose::Batch, START);
    new.file.expires_at = Some(after(60));
    storage.create_file(&OWNER, &new).await?;
    let last = Timestamp(after(60).0 - 1);

    let before = (
        storage.file(&OWNER, new.file.id, last).await?,
        storage.files(&OWNER, &all(Order::Descending), None, last).await?,
    );
    let then = after(60);

    assert_eq!(before.0, Some(new.file.clone()));
    assert_eq!(before.1.data, [new.file.clone()]);
    assert_eq!(storage.file(&OWNER, new.file.id, then).await?, None);
    assert_eq!(storage.files(&OWNER, &all(Order::Descending), None, then).await?.data, []);
    Ok(())
}

async fn a_deleted_file_vanishes(storage: TestStorage) -> Result<()> {
    let kept = created(&storage, START).await?;
    let deleted = created(&storage, START).await?;

    assert!(storage.delete_file(&OWNER, deleted.id, after(1)).await?);

    assert_eq!(storage.file(&OWNER, deleted.id, START).await?, None);
    assert_eq!(storage.files(&OWNER, &all(Order::Descending), None, START).await?.data, [kept]);
    Ok(())
}

async fn a_file_is_deleted_only_once(storage: TestStorage) -> Result<()> {
    let file = created(&storage, START).await?;

    let first = storage.delete_file(&OWNER, file.id, after(1)).await?;
    let second = storage.delete_file(&OWNER, file.id, after(2)).await?;

    assert_eq!((first, second), (true, false));
    Ok(())
}

async fn an_expired_file_cannot_be_deleted(storage: TestStorage) -> Result<()> {
    let mut new = new_file(Purpose::Batch, START);
    new.file.expires_at = Some(after(60));
    storage.create_file(&OWNER, &new).await?;

    assert!(!storage.delete_file(&OWNER, new.file.id, after(60)).await?);
    Ok(())
}

async fn a_file_that_was_there_when_a_batch_was_created_is_its_input(storage: TestStorage) -> Result<()> {
    let mut expires = new_file(Purpose::Batch, START);
    expires.file.expires_at = Some(after(5));
    storage.create_file(&OWNER, &expires).await?;
    let deleted = created(&storage, START).await?;
    storage.delete_file(&OWNER, deleted.id, after(5)).await?;

    for id in [expires.file.id, deleted.id] {
        assert!(storage.input_file(&OWNER, id, after(4)).await?.is_some());
        assert_eq!(storage.input_file(&OWNER, id, after(5)).await?, None);
    }
    Ok(())
}

async fn the_parts_of_a_deleted_file_stay_for_the_batches_that_run_it(storage: TestStorage) -> Result<()> {
    let new = new_file(Purpose::Batch, START);
    storage.create_file(&OWNER, &new).await?;

    storage.delete_file(&OWNER, new.file.id, after(1)).await?;

    assert_eq!(storage.file_parts(&OWNER, new.file.id).await?, new.parts);
    Ok(())
}

async fn files_are_listed_by_age_in_both_orders(storage: TestStorage) -> Result<()> {
    // Created in another order than that of their ages, which is what counts.
    let second = created(&storage, after(2)).await?;
    let first = created(&storage, after(1)).await?;
    let third = created(&storage, after(3)).await?;

    let oldest_first = storage.files(&OWNER, &all(Order::Ascending), None, START).await?;
    let newest_first = storage.files(&OWNER, &all(Order::Descending), None, START).await?;

    assert_eq!(oldest_first.data, [first.clone(), second.clone(), third.clone()]);
    assert_eq!(newest_first.data, [third, second, first]);
    Ok(())
}

async fn files_of_the_same_age_keep_their_order(storage: TestStorage) -> Result<()> {
    let mut files = Vec::new();
    for _ in 0..5 {
        files.push(created(&storage, START).await?);
    }

    let oldest_first = storage.files(&OWNER, &all(Order::Ascending), None, START).await?;
    let newest_first = storage.files(&OWNER, &all(Order::Descending), None, START).await?;

    assert_eq!(oldest_first.data, files);
    files.reverse();
    assert_eq!(newest_first.data, files);
    Ok(())
}

async fn pages_visit_each_file_once_in_both_orders(storage: TestStorage) -> Result<()> {
    let mut ids = Vec::new();
    for no in 0..10 {
        // Ages 0, 0, 0, 0, 1, 1, 1, 1, 2, 2: pages of three begin and end amid files of the same age.
        ids.push(created(&storage, after(no / 4)).await?.id);
    }

    let oldest_first = read_in_pages(&storage, Order::Ascending, 3, None).await?;
    let newest_first = read_in_pages(&storage, Order::Descending, 3, None).await?;

    assert_eq!(oldest_first, ids);
    ids.reverse();
    assert_eq!(newest_first, ids);
    Ok(())
}

async fn pages_of_one_purpose_visit_each_of_its_files_once(storage: TestStorage) -> Result<()> {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(created(&storage, START).await?.id);
        storage.create_file(&OWNER, &new_file(Purpose::Vision, START)).await?;
    }

    let read = read_in_pages(&storage, Order::Ascending, 2, Some(Purpose::Batch)).await?;

    assert_eq!(read, ids);
    assert_eq!(storage.files(&OWNER, &all(Order::Ascending), Some(Purpose::Evals), START).await?.data, []);
    Ok(())
}

async fn a_page_knows_whether_the_list_goes_on(storage: TestStorage) -> Result<()> {
    for _ in 0..3 {
        created(&storage, START).await?;
    }
    let page = |limit| PageRequest { after: None, limit, order: Order::Descending };

    let two = storage.files(&OWNER, &page(2), None, START).await?;
    let three = storage.files(&OWNER, &page(3), None, START).await?;

    assert_eq!((two.data.len(), two.has_more), (2, true));
    assert_eq!((three.data.len(), three.has_more), (3, false));
    Ok(())
}

async fn a_page_of_no_items_is_empty(storage: TestStorage) -> Result<()> {
    created(&storage, START).await?;
    let none = PageRequest { after: None, limit: 0, order: Order::Descending };

    let page = storage.files(&OWNER, &none, None, START).await?;

    assert_eq!((page.data.len(), page.has_more), (0, false));
    Ok(())
}

async fn a_page_after_an_unknown_file_is_empty(storage: TestStorage) -> Result<()> {
    created(&storage, START).await?;
    let unknown = PageRequest { after: Some(FileId::new()), limit: 10, order: Order::Descending };

    let page = storage.files(&OWNER, &unknown, None, START).await?;

    assert_eq!((page.data.len(), page.has_more), (0, false));
    Ok(())
}

async fn a_page_after_a_deleted_file_goes_on(storage: TestStorage) -> Result<()> {
    created(&storage, after(1)).await?;
    let deleted = created(&storage, after(2)).await?;
    let next = created(&storage, after(3)).await?;
    storage.delete_file(&OWNER, deleted.id, after(4)).await?;

    let page = PageRequest { after: Some(deleted.id), limit: 10, order: Order::Ascending };

    assert_eq!(storage.files(&OWNER, &page, None, START).await?.data, [next]);
    Ok(())
}

//! Idempotency keys: the first use counts, for a day.

use batchwright::domain::batch::NewBatch;
use batchwright::domain::file::Purpose;
use batchwright::domain::owner::Owner;
use batchwright::domain::request_key::{KEY_LIFE, KeyUse, RequestKey};
use batchwright::domain::time::Timestamp;
use batchwright::storage::{BatchStore as _, FileStore as _, NewFile, RequestKeyStore as _, Result, Upkeep as _};
use futures::future::try_join_all;

use crate::given::{OWNER, START, TestStorage, after, new_batch, new_file};

on_both_databases!(
    the_first_use_of_a_key_counts,
    of_several_uses_at_once_one_counts,
    a_key_is_forgotten_after_a_day,
    a_key_belongs_to_its_owner,
    a_batch_and_its_input_file_are_created_together_or_not_at_all,
);

const DAY: u64 = KEY_LIFE.as_secs();

fn with_key(fingerprint: &str, created_at: Timestamp) -> NewFile {
    let key = RequestKey { key: "once".to_owned(), fingerprint: fingerprint.to_owned() };
    NewFile { key: Some(key), ..new_file(Purpose::UserData, created_at) }
}

fn key_use(file: &NewFile, fingerprint: &str) -> KeyUse {
    KeyUse { fingerprint: fingerprint.to_owned(), object: file.file.id.to_string() }
}

async fn the_first_use_of_a_key_counts(storage: TestStorage) -> Result<()> {
    let [first, second] = [with_key("a", START), with_key("b", after(1))];

    assert!(storage.create_file(&OWNER, &first).await?);
    assert!(!storage.create_file(&OWNER, &second).await?);

    assert_eq!(storage.key_use(&OWNER, "once", after(1)).await?, Some(key_use(&first, "a")));
    assert_eq!(storage.key_use(&OWNER, "never", after(1)).await?, None);
    assert_eq!(storage.file(&OWNER, second.file.id, after(1)).await?, None);
    Ok(())
}

async fn of_several_uses_at_once_one_counts(storage: TestStorage) -> Result<()> {
    let files: Vec<_> = (0..8).map(|no| with_key(&no.to_string(), START)).collect();

    let kept = try_join_all(files.iter().map(|file| storage.create_file(&OWNER, file))).await?;

    assert_eq!(kept.iter().filter(|kept| **kept).count(), 1);
    let no = kept.iter().position(|kept| *kept).expect("one");
    assert_eq!(storage.key_use(&OWNER, "once", START).await?, Some(key_use(&files[no], &no.to_string())));
    Ok(())
}

async fn a_key_is_forgotten_after_a_day(storage: TestStorage) -> Result<()> {
    storage.create_file(&OWNER, &with_key("a", START)).await?;
    assert_eq!(storage.forget_keys(after(DAY - 1), 10).await?, 0);
    assert!(storage.key_use(&OWNER, "once", after(DAY - 1)).await?.is_some());
    assert_eq!(storage.key_use(&OWNER, "once", after(DAY)).await?, None);

    let again = with_key("b", after(DAY));
    assert!(storage.create_file(&OWNER, &again).await?);

    assert_eq!(storage.key_use(&OWNER, "once", after(DAY)).await?, Some(key_use(&again, "b")));
    assert_eq!(storage.forget_keys(after(2 * DAY), 10).await?, 1);
    assert_eq!(storage.forget_keys(after(2 * DAY), 10).await?, 0);
    Ok(())
}

async fn a_key_belongs_to_its_owner(storage: TestStorage) -> Result<()> {
    let other = Owner::parse("other").expect("an id of an owner");
    let [first, others] = [with_key("a", START), with_key("b", START)];

    assert!(storage.create_file(&OWNER, &first).await?);
    assert_eq!(storage.key_use(&other, "once", START).await?, None);
    assert!(storage.create_file(&other, &others).await?);

    assert_eq!(storage.key_use(&other, "once", START).await?, Some(key_use(&others, "b")));
    Ok(())
}

async fn a_batch_and_its_input_file_are_created_together_or_not_at_all(storage: TestStorage) -> Result<()> {
    let batch_of = |file: &NewFile, key: Option<&str>| NewBatch {
        input_file_id: file.file.id.to_string(),
        idempotency_key: key.map(str::to_owned),
        ..new_batch()
    };
    let [first, same_key, key_of_batch] = [with_key("a", START), with_key("b", START), new_file(Purpose::Batch, START)];

    let created = storage.create_batch_with(&OWNER, &first, &batch_of(&first, Some("once")), START).await?;
    let batch = created.expect("the key is fresh");
    let refused = [
        storage.create_batch_with(&OWNER, &same_key, &batch_of(&same_key, None), START).await?,
        storage.create_batch_with(&OWNER, &key_of_batch, &batch_of(&key_of_batch, Some("once")), START).await?,
    ];

    assert_eq!(refused, [None, None]);
    assert_eq!(storage.batch(&OWNER, batch.id).await?, Some(batch.clone()));
    assert_eq!(storage.file(&OWNER, first.file.id, START).await?, Some(first.file));
    assert_eq!(storage.key_use(&OWNER, "once", START).await?.map(|used| used.object), Some(batch.id.to_string()));
    for file in [same_key, key_of_batch] {
        assert_eq!(storage.file(&OWNER, file.file.id, START).await?, None);
    }
    Ok(())
}

//! A row that cannot be read spoils the answer about itself, and no answer about many.

use batchwright::domain::batch::{Batch, BatchStatus, Counts};
use batchwright::domain::file::Purpose;
use batchwright::domain::ids::{BatchId, FileId};
use batchwright::domain::page::{Order, Page, PageRequest};
use batchwright::domain::time::Timestamp;
use batchwright::storage::{BatchStore as _, FileStore as _, LeaseStore as _, Ledger as _, Result, StorageError};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use uuid::Uuid;

use crate::given::{OWNER, Place, START, TestStorage, WINDOW, after, ending, new_file};

on_both_databases!(
    lists_of_batches_go_on_past_rows_that_cannot_be_read,
    lists_of_files_go_on_past_rows_that_cannot_be_read,
    batches_that_wait_are_found_behind_rows_that_cannot_be_read,
    lanes_are_found_beside_one_that_cannot_be_read,
    a_batch_that_is_given_up_is_completed_and_its_rows_failed,
    only_a_batch_in_progress_is_given_up,
);

/// What makes a row of `batches` unreadable. Only SQLite keeps a value of another type in a column.
const DAMAGE: [(&str, bool); 4] = [
    ("endpoint = 'nowhere'", true),
    ("errors = '[{]'", true),
    ("total = 'many'", false),
    ("completion_window = x'ff'", false),
];

async fn damage(place: &Place, table: &str, what: &str, column: &str, id: Uuid) {
    let statement = AssertSqlSafe(format!("UPDATE {table} SET {what} WHERE {column} = $1"));
    let changed = match place {
        Place::Sqlite(path) => {
            let options = SqliteConnectOptions::new().filename(path);
            let mut connection = SqliteConnection::connect_with(&options).await.expect("it was opened before");
            sqlx::query(statement).bind(id).execute(&mut connection).await.map(|done| done.rows_affected())
        }
        Place::Postgres(url) => {
            let mut connection = PgConnection::connect(url).await.expect("it was opened before");
            sqlx::query(statement).bind(id).execute(&mut connection).await.map(|done| done.rows_affected())
        }
    };
    assert_eq!(changed.expect("it is a statement"), 1);
}

/// Damages each of the batches in another way, as far as the database lets it be damaged.
async fn damage_batches(storage: &TestStorage, batches: &[Uuid]) {
    let is_sqlite = matches!(storage.place, Place::Sqlite(_));
    let ways = DAMAGE.iter().filter(|(_, everywhere)| is_sqlite || *everywhere).cycle();
    for (batch, (what, _)) in batches.iter().zip(ways) {
        damage(&storage.place, "batches", what, "id", *batch).await;
    }
}

/// Reads a list to its end, two at a time, as a client does. Every page but the last is full.
async fn to_the_end<Id: Copy, T>(
    order: Order,
    id: impl Fn(&T) -> Id,
    page: impl AsyncFn(PageRequest<Id>) -> Result<Page<T>>,
) -> Result<Vec<Id>> {
    let mut read = Vec::new();
    loop {
        let page = page(PageRequest { after: read.last().copied(), limit: 2, order }).await?;
        read.extend(page.data.iter().map(&id));
        if !page.has_more {
            return Ok(read);
        }
        assert_eq!(page.data.len(), 2);
    }
}

async fn lists_of_batches_go_on_past_rows_that_cannot_be_read(storage: TestStorage) -> Result<()> {
    let mut made = Vec::new();
    for _ in 0..12 {
        made.push(storage.validating().await?.id);
    }
    // More than a page of them in a row, and the last.
    let (damaged, good): (Vec<BatchId>, Vec<BatchId>) =
        made.iter().copied().partition(|id| made[2..8].contains(id) || *id == made[11]);
    damage_batches(&storage, &damaged.iter().map(|id| id.0).collect::<Vec<_>>()).await;

    let page = async |page| storage.batches(&OWNER, &page).await;
    let oldest_first = to_the_end(Order::Ascending, |batch: &Batch| batch.id, page).await?;
    let newest_first = to_the_end(Order::Descending, |batch: &Batch| batch.id, page).await?;

    assert_eq!(oldest_first, good);
    assert_eq!(newest_first, good.into_iter().rev().collect::<Vec<_>>());
    let behind_a_damaged_one = PageRequest { after: Some(made[5]), limit: 1, order: Order::Ascending };
    assert_eq!(storage.batches(&OWNER, &behind_a_damaged_one).await?.data[0].id, made[8]);
    for id in damaged {
        assert!(storage.batch(&OWNER, id).await.is_err());
    }
    Ok(())
}

async fn lists_of_files_go_on_past_rows_that_cannot_be_read(storage: TestStorage) -> Result<()> {
    let mut made = Vec::new();
    for second in 0..8 {
        let file = new_file(Purpose::Batch, after(second / 2));
        storage.create_file(&OWNER, &file).await?;
        made.push((file.file.created_at, file.file.id));
    }
    made.sort_unstable();
    let made: Vec<FileId> = made.into_iter().map(|(_, id)| id).collect();
    for id in &made[1..6] {
        damage(&storage.place, "files", "purpose = 'none'", "id", id.0).await;
    }

    let page = async |page| storage.files(&OWNER, &page, None, after(9)).await;
    let oldest_first = to_the_end(Order::Ascending, |file| file.id, page).await?;
    let newest_first = to_the_end(Order::Descending, |file| file.id, page).await?;

    assert_eq!(oldest_first, [made[0], made[6], made[7]]);
    assert_eq!(newest_first, [made[7], made[6], made[0]]);
    assert!(matches!(storage.file(&OWNER, made[1], after(9)).await, Err(StorageError::Corrupt { table: "files", .. })));
    Ok(())
}

async fn batches_that_wait_are_found_behind_rows_that_cannot_be_read(storage: TestStorage) -> Result<()> {
    let (mut validating, mut cancelling) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        validating.push(storage.validating().await?.id);
        cancelling.push(storage.batch_in(BatchStatus::Cancelling).await?.id);
    }
    for waiting in [&validating, &cancelling] {
        damage_batches(&storage, &waiting[..5].iter().map(|id| id.0).collect::<Vec<_>>()).await;
    }

    for (waiting, status) in [(validating, BatchStatus::Validating), (cancelling, BatchStatus::Cancelling)] {
        let mut found: Vec<(BatchId, bool)> = Vec::new();
        let mut next = None;
        loop {
            let page = match status {
                BatchStatus::Validating => storage.batches_to_admit(next, 2).await?,
                _ => storage.batches_to_finish(next, 2).await?,
            };
            found.extend(page.items.iter().map(|(id, batch)| (*id, batch.is_ok())));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        let expected: Vec<_> = waiting.iter().enumerate().map(|(no, id)| (*id, no >= 5)).collect();
        assert_eq!(found, expected);
    }
    Ok(())
}

async fn lanes_are_found_beside_one_that_cannot_be_read(storage: TestStorage) -> Result<()> {
    let broken = storage.running(&[3]).await?;
    let good = storage.running(&[3]).await?;
    damage(&storage.place, "lanes", "last = 5000000000", "batch_id", broken.id.0).await;

    let lanes = storage.open_lanes(10, 10).await?;

    assert_eq!(lanes.iter().map(|lane| lane.batch_id).collect::<Vec<_>>(), [good.id]);
    assert_eq!(storage.backlogs(10).await?.iter().map(|backlog| backlog.rows).sum::<u64>(), 3);
    Ok(())
}

async fn a_batch_that_is_given_up_is_completed_and_its_rows_failed(storage: TestStorage) -> Result<()> {
    let batch = storage.batch_in(BatchStatus::InProgress).await?;

    assert!(storage.give_up_batch(batch.id, after(5)).await?);
    let finalizing = storage.now(batch.id).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");
    let end = batchwright::storage::Ending { counts_as_failed: true, ..ending(&finalizing, 0..3) };
    assert!(storage.finish(&end, after(6)).await?);

    let ended = storage.now(batch.id).await?;
    assert_eq!((finalizing.status, finalizing.milestones.finalizing_at), (BatchStatus::Finalizing, Some(after(5))));
    assert_eq!((ended.status, ended.milestones.completed_at), (BatchStatus::Completed, Some(after(6))));
    assert_eq!(ended.counts, Counts { total: 3, completed: 0, failed: 3 });
    assert!(ended.error_file().is_some());
    Ok(())
}

async fn only_a_batch_in_progress_is_given_up(storage: TestStorage) -> Result<()> {
    for status in crate::given::EVERY_STATUS {
        let batch = storage.batch_in(status).await?;

        let given_up = storage.give_up_batch(batch.id, Timestamp(START.0 + 1)).await?;

        assert_eq!(given_up, status == BatchStatus::InProgress, "{status}");
        assert_eq!(storage.now(batch.id).await? == batch, !given_up);
    }
    assert!(!storage.give_up_batch(BatchId::new(), START.plus(WINDOW)).await?);
    Ok(())
}

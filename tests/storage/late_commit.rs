//! A COMMIT that is still under way on PostgreSQL when its client gives it up and records the same again.

use std::sync::Arc;
use std::time::Duration;

use batchwright::domain::batch::Counts;
use batchwright::storage::{Ledger as _, Recorded, Result};
use sqlx::{Connection as _, PgConnection};
use tokio::time::{sleep, timeout};

use crate::given::{Place, TestStorage, after, flush};

/// Makes every transaction that records rows wait in its COMMIT until the lock 1 is free.
const SLOW_COMMIT: &str = "
    CREATE FUNCTION wait_in_commit() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER wait_in_commit AFTER INSERT ON file_parts
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_in_commit();";
const WAITING: &str = "
    SELECT COUNT(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1";

/// Waits until so many statements like this one wait for a lock.
async fn until_waiting(connection: &mut PgConnection, like: &str, count: i64) {
    let waiting = async {
        while sqlx::query_scalar::<_, i64>(WAITING).bind(like).fetch_one(&mut *connection).await.ok() != Some(count) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(1), waiting).await.expect("the statement waits");
}

#[tokio::test]
async fn what_a_late_commit_recorded_is_recorded_once_and_not_refused() -> Result<()> {
    let storage = Arc::new(TestStorage::postgres().await);
    let Place::Postgres(url) = &storage.place else { panic!("it is on PostgreSQL") };
    let mut beside = PgConnection::connect(url).await.expect("the server is there");
    sqlx::raw_sql(SLOW_COMMIT).execute(&mut beside).await.expect("it is in order");
    sqlx::query("SELECT pg_advisory_lock(1)").execute(&mut beside).await.expect("nobody else has it");
    let batch = storage.running(&[4]).await?;
    let lease = storage.claimed(batch.id, 4, storage.living_daemon().await?).await?;
    let rows = Arc::new(flush(&[(&lease, 0..4, 0..0)]));

    let (first, its_rows) = (storage.clone(), rows.clone());
    let first = tokio::spawn(async move { first.record(&its_rows, after(1)).await });
    until_waiting(&mut beside, "COMMIT%", 1).await;
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    // It does not see the first, and waits for its locks.
    let (second, its_rows) = (storage.clone(), rows.clone());
    let second = tokio::spawn(async move { second.record(&its_rows, after(2)).await });
    until_waiting(&mut beside, "%UPDATE%", 1).await;
    sqlx::query("SELECT pg_advisory_unlock(1)").execute(&mut beside).await.expect("it is held");

    assert_eq!(second.await.expect("it does not panic")?, Recorded::Applied);
    assert_eq!(storage.now(batch.id).await?.counts, Counts { total: 4, completed: 4, failed: 0 });
    assert_eq!(storage.recorded_rows(batch.id).await?.len(), 4);
    Ok(())
}

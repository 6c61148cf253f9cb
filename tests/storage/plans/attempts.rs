//! The same of the attempts of rows.

use batchwright::domain::ids::{DaemonId, RequestId};
use batchwright::storage::{Ledger as _, Recorded, Result, StepStore as _};

use super::statements::{assert_found_by, sent};
use crate::attempts::{attempts, end, flush_with};
use crate::given::{OWNER, TestStorage, after};

/// The index of the table's key, on either database.
const BY_ROW: [&str; 2] = ["autoindex_row_attempts", "row_attempts_pkey"];

on_both_databases!(
    attempts_are_kept_by_index,
    the_attempts_of_a_row_are_found_by_index,
    attempts_to_forget_are_found_by_index,
);

async fn attempts_are_kept_by_index(storage: TestStorage) -> Result<()> {
    let lease = storage.claimed(storage.running(&[3]).await?.id, 3, DaemonId::new()).await?;

    let statements = sent(storage.record(&flush_with(&lease, 3, &[(0, &attempts("No."))]), after(1))).await?;

    assert!(statements.iter().any(|statement| statement.contains("row_attempts")), "{statements:?}");
    assert_found_by(&storage.place, &["autoindex_leases", "leases_pkey"], statements).await;
    Ok(())
}

async fn the_attempts_of_a_row_are_found_by_index(storage: TestStorage) -> Result<()> {
    let row = RequestId { batch: storage.running(&[3]).await?.id, row: 0 };

    let statements = sent(storage.attempts(&OWNER, row)).await?;

    assert_found_by(&storage.place, &BY_ROW, statements).await;
    Ok(())
}

async fn attempts_to_forget_are_found_by_index(storage: TestStorage) -> Result<()> {
    let lease = storage.claimed(storage.running(&[3]).await?.id, 3, DaemonId::new()).await?;
    let flush = flush_with(&lease, 3, &[(0, &attempts("No."))]);
    assert_eq!(storage.record(&flush, after(3)).await?, Recorded::Applied);
    end(&storage, lease.batch_id).await?;

    let statements = sent(storage.forget_steps(after(9), 10)).await?;

    assert!(statements.iter().any(|statement| statement.starts_with("DELETE FROM row_attempts")), "{statements:?}");
    assert_found_by(&storage.place, &BY_ROW, statements).await;
    Ok(())
}

//! Outcomes that are recorded at the same moment.

use batchwright::domain::batch::{BatchStatus, Counts};
use batchwright::domain::ids::DaemonId;
use batchwright::domain::lease::Lease;
use batchwright::storage::{BatchStore as _, Ledger as _, Recorded, Result};
use futures::future::join_all;

use super::{assert_recorded, leased, rows, state};
use crate::given::{TestStorage, after, flush};

on_both_databases!(
    flushes_of_many_daemons_at_once_are_all_counted,
    the_same_flush_at_the_same_time_counts_once,
    batches_expire_while_their_outcomes_are_recorded,
);

async fn flushes_of_many_daemons_at_once_are_all_counted(storage: TestStorage) -> Result<()> {
    let (one, other) = (storage.running(&[80]).await?, storage.running(&[80]).await?);
    let mut leases = Vec::new();
    for _ in 0..8 {
        let daemon = DaemonId::new();
        leases.push([storage.claimed(one.id, 10, daemon).await?, storage.claimed(other.id, 10, daemon).await?]);
    }
    let record_all = async |[one, other]: &[Lease; 2]| -> Result<()> {
        for row in one.first..one.last {
            let both = flush(&[(other, row..row, row..row + 1), (one, row..row + 1, row..row)]);
            assert_recorded(&storage, &both).await?;
        }
        Ok(())
    };

    let recorders = join_all(leases.iter().map(record_all)).await;

    recorders.into_iter().collect::<Result<Vec<()>>>()?;
    let counted = [
        (one, Counts { total: 80, completed: 80, failed: 0 }),
        (other, Counts { total: 80, completed: 0, failed: 80 }),
    ];
    for (batch, counts) in counted {
        let (batch, recorded) = state(&storage, batch.id).await?;
        assert_eq!((batch.status, batch.counts), (BatchStatus::Finalizing, counts));
        assert_eq!(recorded, rows(0..80));
        let parts = [batch.output_file_id, batch.error_file_id].map(|file| storage.parts_of(file));
        assert_eq!(join_all(parts).await.into_iter().collect::<Result<Vec<_>>>()?.concat().len(), 80);
    }
    assert_eq!(storage.lapsed(10).await?, []);
    Ok(())
}

async fn the_same_flush_at_the_same_time_counts_once(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 3, 3).await?;
    let flush = flush(&[(&lease, 0..2, 0..0)]);

    // A commit whose answer is late meets its repetition: it may fail, but it must not count.
    let answers = join_all((0..4).map(|_| storage.record(&flush, after(5)))).await;

    assert!(answers.iter().any(|answer| matches!(answer, Ok(Recorded::Applied))));
    assert_recorded(&storage, &flush).await?;
    assert_eq!(storage.now(batch.id).await?.counts, Counts { total: 3, completed: 2, failed: 0 });
    assert_eq!(storage.parts_of(batch.output_file_id).await?.len(), 1);
    Ok(())
}

async fn batches_expire_while_their_outcomes_are_recorded(storage: TestStorage) -> Result<()> {
    // More than one round: those who lock batches in different orders meet by chance.
    for _ in 0..3 {
        let mut leases = Vec::new();
        for _ in 0..50 {
            leases.push(leased(&storage, 3, 2).await?.1);
        }
        let ran: Vec<_> = leases.iter().map(|lease| (lease, 0..1, 1..2)).collect();
        let flush = flush(&ran);
        let window_closed = after(24 * 3600);

        let (recorded, one, other) = tokio::join!(
            storage.record(&flush, after(5)),
            storage.expire_batches(window_closed, 100),
            storage.expire_batches(window_closed, 100),
        );

        assert_eq!(recorded?, Recorded::Applied);
        assert_eq!(one? + other?, 50);
    }
    Ok(())
}

//! Terminal states never change, whatever is asked of the storage.

use batchwright::domain::batch::{Batch, BatchStatus};
use batchwright::domain::file::{File, FilePart};
use batchwright::domain::ids::{BatchId, DaemonId, LeaseId};
use batchwright::domain::lease::{Lease, OpenLane};
use batchwright::storage::{BatchStore as _, FileStore as _, LeaseStore as _, Ledger as _, Recorded, Result};
use roaring::RoaringBitmap;

use crate::given::{OWNER, TestStorage, WINDOW, after, ending, flush, lanes};

on_both_databases!(
    a_completed_batch_never_changes,
    a_failed_batch_never_changes,
    an_expired_batch_never_changes,
    a_cancelled_batch_never_changes,
);

/// All that a client can see of a batch, and what its lines are made of.
#[derive(Debug, PartialEq)]
struct Seen {
    batch: Batch,
    files: [Option<File>; 2],
    parts: [Vec<FilePart>; 2],
    recorded: RoaringBitmap,
}

async fn seen(storage: &TestStorage, id: BatchId) -> Result<Seen> {
    let batch = storage.now(id).await?;
    Ok(Seen {
        files: [
            storage.file(&OWNER, batch.output_file_id, after(2)).await?,
            storage.file(&OWNER, batch.error_file_id, after(2)).await?,
        ],
        parts: [storage.parts_of(batch.output_file_id).await?, storage.parts_of(batch.error_file_id).await?],
        recorded: storage.recorded_rows(id).await?,
        batch,
    })
}

/// A batch in progress, and what a daemon knows of it that stops now and comes back when it has ended.
async fn known_to_a_daemon(storage: &TestStorage) -> Result<(BatchId, OpenLane, Lease)> {
    let id = storage.running(&[3]).await?.id;
    let lease = storage.claimed(id, 1, DaemonId::new()).await?;
    Ok((id, storage.open_lane(id).await?, lease))
}

async fn end(storage: &TestStorage, id: BatchId, never_ran: std::ops::Range<u32>) -> Result<()> {
    storage.fence(id).await?.expect("no daemon lives");
    assert!(storage.finish(&ending(&storage.now(id).await?, never_ran), after(2)).await?);
    Ok(())
}

/// Asks everything of the storage that would change a batch that has not ended.
async fn assert_never_changes(storage: &TestStorage, id: BatchId, lane: OpenLane, lease: Lease) -> Result<()> {
    let before = seen(storage, id).await?;
    let status = before.batch.status;
    assert!(status.is_terminal());
    let now = before.batch.expires_at.plus(WINDOW);

    assert!(!storage.admit_batch(id, &lanes(&[3]), now).await?);
    assert!(!storage.refuse_batch(id, &[], now).await?);
    assert_eq!(storage.cancel_batch(&OWNER, id, now).await?.as_ref(), Some(&before.batch));
    assert_eq!(storage.expire_batches(now, 10).await?, 0);
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    assert_eq!(storage.claim(&lane, 1, DaemonId::new()).await?, None);
    assert_eq!(storage.lapsed(10).await?, []);
    let lapsed = lease.hold();
    assert_eq!(storage.take_over(lapsed, DaemonId::new()).await?, None);
    storage.give_back(lease.hold()).await?;
    let late = flush(&[(&lease, 0..1, 1..2)]);
    assert_eq!(storage.record(&late, now).await?, Recorded::LostLeases(vec![lease.hold()]));
    assert_eq!(storage.fence(id).await?, None);
    for from in [BatchStatus::Finalizing, BatchStatus::Cancelling, status] {
        let mut again = ending(&before.batch, 0..3);
        again.from = from;
        assert!(!storage.finish(&again, now).await?, "from {from}");
        again.never_ran = None;
        assert!(!storage.finish(&again, now).await?, "from {from}");
    }

    assert_eq!(seen(storage, id).await?, before);
    Ok(())
}

async fn a_completed_batch_never_changes(storage: TestStorage) -> Result<()> {
    let (id, lane, lease) = known_to_a_daemon(&storage).await?;
    let rest = storage.claimed(id, 2, DaemonId::new()).await?;
    assert_eq!(
        storage.record(&flush(&[(&lease, 0..1, 0..0), (&rest, 1..2, 2..3)]), after(1)).await?,
        Recorded::Applied
    );
    end(&storage, id, 0..0).await?;
    assert_eq!(storage.now(id).await?.status, BatchStatus::Completed);

    assert_never_changes(&storage, id, lane, lease).await
}

async fn a_failed_batch_never_changes(storage: TestStorage) -> Result<()> {
    let batch = storage.batch_in(BatchStatus::Failed).await?;
    // It never had a lane or a lease.
    let lane =
        OpenLane { batch_id: batch.id, no: 0, model: "model-0".into(), next: 0, last: 3, expires_at: batch.expires_at };
    let lease = Lease {
        id: LeaseId::new(),
        batch_id: batch.id,
        model: "model-0".to_owned(),
        first: 0,
        last: 3,
        token: 1,
        owed: 3,
        deaths: 0,
    };

    assert_never_changes(&storage, batch.id, lane, lease).await
}

async fn an_expired_batch_never_changes(storage: TestStorage) -> Result<()> {
    let (id, lane, lease) = known_to_a_daemon(&storage).await?;
    storage.expire_batches(storage.now(id).await?.expires_at, 1).await?;
    end(&storage, id, 0..3).await?;
    assert_eq!(storage.now(id).await?.status, BatchStatus::Expired);

    assert_never_changes(&storage, id, lane, lease).await
}

async fn a_cancelled_batch_never_changes(storage: TestStorage) -> Result<()> {
    let (id, lane, lease) = known_to_a_daemon(&storage).await?;
    storage.cancel_batch(&OWNER, id, after(1)).await?;
    end(&storage, id, 0..3).await?;
    assert_eq!(storage.now(id).await?.status, BatchStatus::Cancelled);

    assert_never_changes(&storage, id, lane, lease).await
}

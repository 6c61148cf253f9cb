//! Lanes, leases and daemons: who may run which rows.

use std::time::Duration;

use batchwright::domain::batch::NewBatch;
use batchwright::domain::endpoint::Endpoint;
use batchwright::domain::file::Purpose;
use batchwright::domain::ids::{DaemonId, FileId, LeaseId};
use batchwright::domain::lease::{Lease, LeaseHold, LeaseOrder};
use batchwright::storage::{
    BatchStore as _, FileStore as _, HeldLease, LeaseStore as _, Ledger as _, NewFile, Recorded, Result,
};
use futures::future::join_all;

use crate::given::{OWNER, START, TestStorage, after, flush, indexed_file, new_batch, new_file};

on_both_databases!(
    the_lease_of_a_living_daemon_has_not_lapsed,
    the_lease_of_a_dead_daemon_has_lapsed,
    the_lease_of_a_daemon_that_never_beat_has_lapsed,
    a_lease_that_was_given_back_has_lapsed,
    a_lease_given_back_with_an_old_token_stays,
    a_daemon_that_beats_again_keeps_its_leases,
    a_daemon_that_has_beaten_since_it_was_seen_is_not_declared_dead,
    a_daemon_takes_nothing_over_from_itself,
    a_lease_that_owes_other_rows_than_it_counts_is_corrected_by_its_holder,
    lapsed_leases_are_of_batches_in_progress_only,
    lapsed_leases_come_up_to_the_limit,
    whoever_takes_a_lease_over_has_its_rows_under_a_higher_token,
    a_lease_is_taken_over_from_the_token_it_lapsed_with_only,
    a_lease_of_a_living_daemon_is_not_taken_over,
    one_of_several_takers_wins,
    a_heartbeat_returns_the_daemons_own_leases,
    a_heartbeat_tells_which_batches_still_run,
    a_heartbeat_leaves_out_leases_that_were_taken_over,
    the_input_of_a_batch_is_its_file_with_the_row_index,
    the_input_of_a_batch_outlives_its_deletion,
    a_batch_without_an_indexed_file_has_no_input,
);

/// The state of leases as the one lapsed lease it must be.
async fn only_lapsed(storage: &TestStorage) -> Result<LeaseHold> {
    let lapsed = storage.lapsed(10).await?;
    assert_eq!(lapsed.len(), 1);
    Ok(lapsed[0])
}

fn held(lease: &Lease, order: LeaseOrder) -> HeldLease {
    HeldLease { lease: lease.hold(), order }
}

/// Sorts leases by their rows and checks that these are `0..rows`, each once.
pub fn assert_covered(leases: &mut [Lease], rows: u32) {
    leases.sort_by_key(|lease| lease.first);
    let mut next = 0;
    for lease in leases {
        assert_eq!(lease.first, next);
        assert!(lease.first < lease.last);
        next = lease.last;
    }
    assert_eq!(next, rows);
}

async fn the_lease_of_a_living_daemon_has_not_lapsed(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[2]).await?;

    storage.claimed(batch.id, 2, daemon).await?;

    assert_eq!(storage.lapsed(10).await?, []);
    Ok(())
}

async fn the_lease_of_a_dead_daemon_has_lapsed(storage: TestStorage) -> Result<()> {
    let (daemon, lease) = storage.held_lease().await?;

    storage.let_die(daemon).await?;

    assert_eq!(storage.lapsed(10).await?, [LeaseHold { id: lease.id, token: 1 }]);
    Ok(())
}

async fn the_lease_of_a_daemon_that_never_beat_has_lapsed(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[2]).await?;

    let lease = storage.claimed(batch.id, 2, DaemonId::new()).await?;

    assert_eq!(storage.lapsed(10).await?, [LeaseHold { id: lease.id, token: 1 }]);
    Ok(())
}

async fn a_lease_that_was_given_back_has_lapsed(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[4]).await?;
    let given_back = storage.claimed(batch.id, 2, daemon).await?;
    let kept = storage.claimed(batch.id, 2, daemon).await?;

    storage.give_back(given_back.hold()).await?;

    assert_eq!(storage.lapsed(10).await?, [LeaseHold { id: given_back.id, token: 1 }]);
    assert_eq!(storage.beat(daemon, Duration::from_hours(1)).await?.leases, [held(&kept, LeaseOrder::Run)]);
    Ok(())
}

async fn a_lease_given_back_with_an_old_token_stays(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[2]).await?;
    let old = storage.claimed(batch.id, 2, DaemonId::new()).await?;
    let daemon = storage.living_daemon().await?;
    let lapsed = only_lapsed(&storage).await?;
    let taken = storage.take_over(lapsed, daemon).await?.expect("nobody else takes it");

    storage.give_back(old.hold()).await?;

    assert_eq!(storage.lapsed(10).await?, []);
    assert_eq!(storage.beat(daemon, Duration::from_hours(1)).await?.leases, [held(&taken, LeaseOrder::Run)]);
    Ok(())
}

async fn a_daemon_that_beats_again_keeps_its_leases(storage: TestStorage) -> Result<()> {
    let (daemon, lease) = storage.held_lease().await?;
    storage.let_die(daemon).await?;
    let lapsed = only_lapsed(&storage).await?;

    let mine = storage.beat(daemon, Duration::from_hours(1)).await?.leases;

    assert_eq!(mine, [held(&lease, LeaseOrder::Run)]);
    assert_eq!(storage.lapsed(10).await?, []);
    assert_eq!(storage.take_over(lapsed, DaemonId::new()).await?, None);
    Ok(())
}

async fn a_daemon_that_has_beaten_since_it_was_seen_is_not_declared_dead(storage: TestStorage) -> Result<()> {
    let daemon = DaemonId::new();
    let seen = storage.beat(daemon, Duration::from_millis(1)).await?.daemons[0];
    let batch = storage.running(&[2]).await?;
    storage.claimed(batch.id, 2, daemon).await?;
    let since = storage.beat(daemon, Duration::from_millis(1)).await?.daemons[0];

    assert!(!storage.declare_dead(seen).await?);
    let after_the_old_pulse = storage.lapsed(10).await?;
    assert!(storage.declare_dead(since).await?);

    assert_eq!(after_the_old_pulse, []);
    assert_eq!(storage.lapsed(10).await?.len(), 1);
    assert!(!storage.declare_dead(since).await?, "once");
    Ok(())
}

async fn a_daemon_takes_nothing_over_from_itself(storage: TestStorage) -> Result<()> {
    let (daemon, lease) = storage.held_lease().await?;
    storage.let_die(daemon).await?;

    let by_itself = (storage.lapsed_for(daemon, 10).await?, storage.take_over(lease.hold(), daemon).await?);

    assert_eq!(by_itself, (vec![], None));
    assert_eq!(storage.lapsed(10).await?, [lease.hold()], "it has lapsed for others");
    storage.give_back(lease.hold()).await?;
    assert_eq!(storage.lapsed_for(daemon, 10).await?, [lease.hold()], "given back it is anybody's");
    Ok(())
}

async fn a_lease_that_owes_other_rows_than_it_counts_is_corrected_by_its_holder(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[4]).await?;
    let lease = storage.claimed(batch.id, 4, DaemonId::new()).await?;
    let old = LeaseHold { token: lease.token - 1, ..lease.hold() };

    storage.correct_owed(old, 0).await?;
    let by_an_old_holder = only_lapsed(&storage).await?;
    storage.correct_owed(lease.hold(), 1).await?;
    let taken = storage.take_over(lease.hold(), DaemonId::new()).await?.expect("nobody else takes it");
    storage.correct_owed(taken.hold(), 0).await?;

    assert_eq!((by_an_old_holder, taken.owed), (lease.hold(), 1));
    assert_eq!(storage.lapsed(10).await?, [], "what owes nothing is gone");
    Ok(())
}

async fn lapsed_leases_are_of_batches_in_progress_only(storage: TestStorage) -> Result<()> {
    let called_off = storage.running(&[2]).await?;
    storage.claimed(called_off.id, 2, DaemonId::new()).await?;
    storage.cancel_batch(&OWNER, called_off.id, after(1)).await?;
    let overdue = storage.running(&[2]).await?;
    storage.claimed(overdue.id, 2, DaemonId::new()).await?;
    storage.expire_batches(overdue.expires_at, 10).await?;

    assert_eq!(storage.lapsed(10).await?, []);
    Ok(())
}

async fn lapsed_leases_come_up_to_the_limit(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    for _ in 0..3 {
        storage.claimed(batch.id, 1, DaemonId::new()).await?;
    }

    assert_eq!(storage.lapsed(2).await?.len(), 2);
    Ok(())
}

async fn whoever_takes_a_lease_over_has_its_rows_under_a_higher_token(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[5]).await?;
    let old = storage.claimed(batch.id, 4, DaemonId::new()).await?;
    let daemon = storage.living_daemon().await?;

    let taken = storage.take_over(only_lapsed(&storage).await?, daemon).await?;

    assert_eq!(taken, Some(Lease { token: 2, deaths: 1, ..old }));
    assert_eq!(storage.lapsed(10).await?, []);
    Ok(())
}

async fn a_lease_is_taken_over_from_the_token_it_lapsed_with_only(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[2]).await?;
    storage.claimed(batch.id, 2, DaemonId::new()).await?;
    let first = only_lapsed(&storage).await?;
    // The taker is dead too, so that only the token stands against the next.
    storage.take_over(first, DaemonId::new()).await?.expect("nobody else takes it");

    assert_eq!(storage.take_over(first, DaemonId::new()).await?, None);

    assert_eq!(only_lapsed(&storage).await?, LeaseHold { token: 2, ..first });
    assert_eq!(storage.take_over(LeaseHold { id: LeaseId::new(), token: 1 }, DaemonId::new()).await?, None);
    Ok(())
}

async fn a_lease_of_a_living_daemon_is_not_taken_over(storage: TestStorage) -> Result<()> {
    let (daemon, lease) = storage.held_lease().await?;

    let taken = storage.take_over(lease.hold(), DaemonId::new()).await?;

    assert_eq!(taken, None);
    assert_eq!(storage.beat(daemon, Duration::from_hours(1)).await?.leases, [held(&lease, LeaseOrder::Run)]);
    Ok(())
}

async fn one_of_several_takers_wins(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[2]).await?;
    storage.claimed(batch.id, 2, DaemonId::new()).await?;
    let lapsed = only_lapsed(&storage).await?;

    let takers = (0..8).map(|_| storage.take_over(lapsed, DaemonId::new()));
    let taken: Vec<Option<Lease>> = join_all(takers).await.into_iter().collect::<Result<_>>()?;

    let tokens: Vec<i64> = taken.into_iter().flatten().map(|lease| lease.token).collect();
    assert_eq!(tokens, [2]);
    Ok(())
}

async fn a_heartbeat_returns_the_daemons_own_leases(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let other = storage.living_daemon().await?;
    let batch = storage.running(&[6]).await?;
    let first = storage.claimed(batch.id, 2, daemon).await?;
    let others = storage.claimed(batch.id, 2, other).await?;
    let done = storage.claimed(batch.id, 2, daemon).await?;
    assert_eq!(storage.record(&flush(&[(&done, 4..6, 0..0)]), after(1)).await?, Recorded::Applied);

    assert_eq!(storage.beat(daemon, Duration::from_hours(1)).await?.leases, [held(&first, LeaseOrder::Run)]);
    assert_eq!(storage.beat(other, Duration::from_hours(1)).await?.leases, [held(&others, LeaseOrder::Run)]);
    Ok(())
}

async fn a_heartbeat_tells_which_batches_still_run(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let overdue = storage.running(&[2]).await?;
    let closing = storage.claimed(overdue.id, 2, daemon).await?;
    storage.expire_batches(overdue.expires_at, 10).await?;
    let called_off = storage.running(&[2]).await?;
    let stopping = storage.claimed(called_off.id, 2, daemon).await?;
    storage.cancel_batch(&OWNER, called_off.id, after(1)).await?;
    let goes_on = storage.running(&[2]).await?;
    let running = storage.claimed(goes_on.id, 2, daemon).await?;

    let mut leases = storage.beat(daemon, Duration::from_hours(1)).await?.leases;

    leases.sort_by_key(|held| held.lease);
    let (halt, run) = (LeaseOrder::Halt, LeaseOrder::Run);
    assert_eq!(leases, [held(&closing, halt), held(&stopping, halt), held(&running, run)]);
    Ok(())
}

async fn a_heartbeat_leaves_out_leases_that_were_taken_over(storage: TestStorage) -> Result<()> {
    let (slow, _) = storage.held_lease().await?;
    storage.let_die(slow).await?;
    storage.take_over(only_lapsed(&storage).await?, DaemonId::new()).await?.expect("nobody else takes it");

    assert_eq!(storage.beat(slow, Duration::from_hours(1)).await?.leases, []);
    Ok(())
}

/// A file that a batch can run, and a batch of it.
async fn batch_of_a_file(storage: &TestStorage) -> Result<(NewFile, NewBatch)> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;
    let batch =
        NewBatch { input_file_id: file.file.id.to_string(), endpoint: Endpoint::Embeddings.into(), ..new_batch() };
    Ok((file, batch))
}

async fn the_input_of_a_batch_is_its_file_with_the_row_index(storage: TestStorage) -> Result<()> {
    let (file, new) = batch_of_a_file(&storage).await?;
    let batch = storage.created(&OWNER, &new, START).await?;

    let input = storage.batch_input(&OWNER, batch.id).await?.expect("the file is there");

    assert_eq!(input.endpoint, Endpoint::Embeddings.into());
    assert_eq!(Some(input.index), file.indexed.map(|indexed| indexed.index));
    assert_eq!(input.parts, file.parts);
    Ok(())
}

async fn the_input_of_a_batch_outlives_its_deletion(storage: TestStorage) -> Result<()> {
    let (file, new) = batch_of_a_file(&storage).await?;
    let batch = storage.created(&OWNER, &new, START).await?;

    storage.delete_file(&OWNER, file.file.id, after(1)).await?;

    assert!(storage.batch_input(&OWNER, batch.id).await?.is_some());
    Ok(())
}

async fn a_batch_without_an_indexed_file_has_no_input(storage: TestStorage) -> Result<()> {
    let not_indexed = new_file(Purpose::Vision, START);
    storage.create_file(&OWNER, &not_indexed).await?;

    for input in [not_indexed.file.id.to_string(), FileId::new().to_string(), "no file at all".to_owned()] {
        let batch = storage.created(&OWNER, &NewBatch { input_file_id: input, ..new_batch() }, START).await?;
        assert!(storage.batch_input(&OWNER, batch.id).await?.is_none());
    }
    Ok(())
}

/// What opening a database does to leases.
mod opening {
    use super::*;

    #[tokio::test]
    async fn every_lease_has_lapsed_when_sqlite_is_opened_again() -> Result<()> {
        let storage = TestStorage::sqlite().await;
        let (_, lease) = storage.held_lease().await?;

        let reopened = storage.place.open().await?;

        assert_eq!(
            reopened
                .lapsed_leases(DaemonId::new(), 10, 10)
                .await?
                .iter()
                .map(|lapsed| lapsed.lease)
                .collect::<Vec<_>>(),
            [LeaseHold { id: lease.id, token: 1 }]
        );
        Ok(())
    }

    #[tokio::test]
    async fn leases_stay_when_another_replica_opens_postgres() -> Result<()> {
        let storage = TestStorage::postgres().await;
        storage.held_lease().await?;

        let other = storage.place.open().await?;

        assert_eq!(
            other.lapsed_leases(DaemonId::new(), 10, 10).await?.iter().map(|lapsed| lapsed.lease).collect::<Vec<_>>(),
            []
        );
        Ok(())
    }
}

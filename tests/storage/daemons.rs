//! Daemons: their place among those that live, their leaving, and the leases that may kill them.

use std::time::Duration;

use batchwright::domain::ids::{DaemonId, LeaseId};
use batchwright::domain::lease::{DaemonRank, Lease, LeaseHold};
use batchwright::storage::{LeaseStore as _, Ledger as _, Recorded, Result};

use crate::given::{TestStorage, after, flush};

on_both_databases!(
    a_daemon_alone_has_the_first_place_of_one,
    daemons_that_live_have_places_by_their_ids,
    a_daemon_that_died_has_no_place,
    a_daemon_that_left_has_no_place,
    a_daemon_that_comes_back_to_life_has_its_place_again,
    the_leases_of_a_daemon_that_left_can_be_taken_over_at_once,
    a_daemon_that_left_leaves_the_leases_of_others_alone,
    a_daemon_that_never_was_can_leave,
    each_death_of_a_holder_is_counted,
    a_lease_that_was_given_back_counts_no_death,
    a_lease_is_quarantined_after_three_deaths,
    what_is_recorded_sets_the_deaths_back,
    a_row_that_was_recorded_in_quarantine_leaves_the_lease_there,
    each_try_in_quarantine_is_counted_whoever_makes_it,
    what_is_recorded_sets_the_trials_back,
    a_holder_that_gives_back_has_not_died_of_the_row_it_tried,
    a_lease_that_is_lost_is_not_tried,
);

/// As long as any test.
const LONG: Duration = Duration::from_hours(1);

async fn place_of(storage: &TestStorage, daemon: DaemonId) -> Result<DaemonRank> {
    let daemons = storage.beat(daemon, LONG).await?.daemons;
    let rank = daemons.iter().position(|pulse| pulse.id == daemon).expect("it has just beaten");
    let few = |count| u32::try_from(count).expect("few daemons");
    Ok(DaemonRank { rank: few(rank), of: few(daemons.len()) })
}

/// A lease on `rows` rows, in the hands of a daemon that is dead.
async fn dead_lease(storage: &TestStorage, rows: u32) -> Result<Lease> {
    let batch = storage.running(&[rows]).await?;
    storage.claimed(batch.id, rows, DaemonId::new()).await
}

/// The same lease, with its next holder.
async fn taken_over(storage: &TestStorage, lease: &Lease, daemon: DaemonId) -> Result<Lease> {
    let lapsed = lease.hold();
    Ok(storage.take_over(lapsed, daemon).await?.expect("nobody else takes it"))
}

/// The same lease, after so many more of its holders have died. The last of them is about to.
async fn after_deaths(storage: &TestStorage, lease: &Lease, deaths: u32) -> Result<Lease> {
    let mut lease = lease.clone();
    for _ in 0..deaths {
        lease = taken_over(storage, &lease, DaemonId::new()).await?;
    }
    Ok(lease)
}

async fn record_row(storage: &TestStorage, lease: &Lease, row: u32) -> Result<()> {
    assert_eq!(storage.record(&flush(&[(lease, row..row + 1, 0..0)]), after(1)).await?, Recorded::Applied);
    Ok(())
}

async fn a_daemon_alone_has_the_first_place_of_one(storage: TestStorage) -> Result<()> {
    let daemon = DaemonId::new();

    assert_eq!(place_of(&storage, daemon).await?, DaemonRank { rank: 0, of: 1 });
    assert_eq!(place_of(&storage, daemon).await?, DaemonRank { rank: 0, of: 1 });
    Ok(())
}

async fn daemons_that_live_have_places_by_their_ids(storage: TestStorage) -> Result<()> {
    let mut daemons: Vec<DaemonId> = (0..4).map(|_| DaemonId::new()).collect();
    for daemon in daemons.iter().rev() {
        storage.beat(*daemon, LONG).await?;
    }

    daemons.sort();
    for (rank, daemon) in (0..).zip(daemons) {
        assert_eq!(place_of(&storage, daemon).await?, DaemonRank { rank, of: 4 });
    }
    Ok(())
}

async fn a_daemon_that_died_has_no_place(storage: TestStorage) -> Result<()> {
    let [first, second, third] = [(); 3].map(|()| DaemonId::new());
    for daemon in [first, second, third] {
        storage.beat(daemon, LONG).await?;
    }

    storage.let_die(first).await?;

    assert_eq!(place_of(&storage, second).await?, DaemonRank { rank: 0, of: 2 });
    assert_eq!(place_of(&storage, third).await?, DaemonRank { rank: 1, of: 2 });
    Ok(())
}

async fn a_daemon_that_left_has_no_place(storage: TestStorage) -> Result<()> {
    let (first, second) = (storage.living_daemon().await?, storage.living_daemon().await?);

    storage.leave(first).await?;

    assert_eq!(place_of(&storage, second).await?, DaemonRank { rank: 0, of: 1 });
    Ok(())
}

async fn a_daemon_that_comes_back_to_life_has_its_place_again(storage: TestStorage) -> Result<()> {
    let (first, second) = (storage.living_daemon().await?, storage.living_daemon().await?);
    storage.let_die(first).await?;
    assert_eq!(place_of(&storage, second).await?, DaemonRank { rank: 0, of: 1 });

    assert_eq!(place_of(&storage, first).await?, DaemonRank { rank: 0, of: 2 });

    assert_eq!(place_of(&storage, second).await?, DaemonRank { rank: 1, of: 2 });
    Ok(())
}

async fn the_leases_of_a_daemon_that_left_can_be_taken_over_at_once(storage: TestStorage) -> Result<()> {
    let leaving = storage.living_daemon().await?;
    let batch = storage.running(&[3]).await?;
    let lease = storage.claimed(batch.id, 3, leaving).await?;
    let before = storage.lapsed(10).await?;

    storage.leave(leaving).await?;

    let next = storage.living_daemon().await?;
    assert_eq!(before, []);
    assert_eq!(storage.lapsed(10).await?, [LeaseHold { id: lease.id, token: 1 }]);
    assert_eq!(taken_over(&storage, &lease, next).await?.token, 2);
    assert_eq!(storage.beat(leaving, LONG).await?.leases, []);
    Ok(())
}

async fn a_daemon_that_left_leaves_the_leases_of_others_alone(storage: TestStorage) -> Result<()> {
    let (leaving, other) = (storage.living_daemon().await?, storage.living_daemon().await?);
    let batch = storage.running(&[3]).await?;
    let lease = storage.claimed(batch.id, 3, other).await?;

    storage.leave(leaving).await?;

    assert_eq!(storage.lapsed(10).await?, []);
    let held: Vec<LeaseId> = storage.beat(other, LONG).await?.leases.iter().map(|held| held.lease.id).collect();
    assert_eq!(held, [lease.id]);
    Ok(())
}

async fn a_daemon_that_never_was_can_leave(storage: TestStorage) -> Result<()> {
    storage.leave(DaemonId::new()).await
}

async fn each_death_of_a_holder_is_counted(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 3).await?;

    let mut deaths = vec![lease.deaths];
    let mut lease = lease;
    for _ in 0..4 {
        lease = after_deaths(&storage, &lease, 1).await?;
        deaths.push(lease.deaths);
    }

    assert_eq!(deaths, [0, 1, 2, 3, 4]);
    Ok(())
}

async fn a_lease_that_was_given_back_counts_no_death(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 3).await?;
    let lease = after_deaths(&storage, &lease, 2).await?;

    storage.give_back(lease.hold()).await?;
    let lease = taken_over(&storage, &lease, DaemonId::new()).await?;

    assert_eq!(lease.deaths, 2);
    assert_eq!(after_deaths(&storage, &lease, 1).await?.deaths, 3);
    Ok(())
}

async fn a_lease_is_quarantined_after_three_deaths(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 3).await?;

    let after_two = after_deaths(&storage, &lease, 2).await?;
    let after_three = after_deaths(&storage, &after_two, 1).await?;
    let after_four = after_deaths(&storage, &after_three, 1).await?;

    let leases = [lease, after_two, after_three, after_four];
    assert_eq!(leases.map(|lease| lease.is_quarantined()), [false, false, true, true]);
    Ok(())
}

async fn what_is_recorded_sets_the_deaths_back(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 5).await?;
    let lease = after_deaths(&storage, &lease, 3).await?;

    record_row(&storage, &lease, 0).await?;

    assert_eq!(after_deaths(&storage, &lease, 1).await?.deaths, 1);
    Ok(())
}

async fn a_row_that_was_recorded_in_quarantine_leaves_the_lease_there(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 5).await?;
    let lease = after_deaths(&storage, &lease, 3).await?;
    storage.try_in_quarantine(lease.hold()).await?;

    record_row(&storage, &lease, 0).await?;
    let next = after_deaths(&storage, &lease, 1).await?;
    // Recorded without having been tried in quarantine, it shows that several of its rows ran together and nobody died.
    record_row(&storage, &next, 1).await?;

    assert_eq!(next.deaths, 4);
    assert_eq!(after_deaths(&storage, &next, 1).await?.deaths, 1);
    Ok(())
}

async fn each_try_in_quarantine_is_counted_whoever_makes_it(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 5).await?;

    let first = storage.try_in_quarantine(lease.hold()).await?;
    let second = storage.try_in_quarantine(lease.hold()).await?;
    let next = after_deaths(&storage, &lease, 1).await?;
    let third = storage.try_in_quarantine(next.hold()).await?;

    assert_eq!([first, second, third], [Some(1), Some(2), Some(3)]);
    Ok(())
}

async fn what_is_recorded_sets_the_trials_back(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 5).await?;
    for _ in 0..2 {
        storage.try_in_quarantine(lease.hold()).await?;
    }

    record_row(&storage, &lease, 0).await?;

    assert_eq!(storage.try_in_quarantine(lease.hold()).await?, Some(1));
    Ok(())
}

async fn a_holder_that_gives_back_has_not_died_of_the_row_it_tried(storage: TestStorage) -> Result<()> {
    let lease = dead_lease(&storage, 5).await?;
    storage.try_in_quarantine(lease.hold()).await?;

    storage.give_back(lease.hold()).await?;
    let next = after_deaths(&storage, &lease, 1).await?;

    assert_eq!(storage.try_in_quarantine(next.hold()).await?, Some(1));
    Ok(())
}

async fn a_lease_that_is_lost_is_not_tried(storage: TestStorage) -> Result<()> {
    let old = dead_lease(&storage, 1).await?;
    let new = after_deaths(&storage, &old, 1).await?;

    let by_the_old_holder = storage.try_in_quarantine(old.hold()).await?;
    let by_the_new = storage.try_in_quarantine(new.hold()).await?;
    record_row(&storage, &new, 0).await?;
    let when_it_is_done = storage.try_in_quarantine(new.hold()).await?;

    // The old holder's trial was not counted.
    assert_eq!((by_the_old_holder, by_the_new, when_it_is_done), (None, Some(1), None));
    assert_eq!(storage.try_in_quarantine(LeaseHold { id: LeaseId::new(), token: 1 }).await?, None);
    Ok(())
}

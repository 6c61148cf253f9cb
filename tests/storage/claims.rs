//! Lanes and claims: a lane is claimed once, without gap or overlap.

use batchwright::domain::batch::Batch;
use batchwright::domain::ids::{BatchId, DaemonId};
use batchwright::domain::lease::Lease;
use batchwright::domain::owner::Owner;
use batchwright::domain::report::NewLane;
use batchwright::storage::{BatchStore as _, LeaseStore as _, ModelBacklog, Result};
use futures::future::join_all;

use crate::given::{OWNER, START, TestStorage, after, lanes, new_batch};
use crate::leases::assert_covered;

on_both_databases!(
    a_claim_moves_the_cursor,
    claims_cover_a_lane_without_gap_or_overlap,
    claims_at_the_same_time_cover_a_lane_without_gap_or_overlap,
    a_claim_that_saw_an_old_cursor_gets_nothing,
    a_claim_beyond_the_end_of_the_lane_gets_nothing,
    a_claim_on_a_batch_that_was_called_off_gets_nothing,
    a_claim_on_a_batch_whose_window_closed_gets_nothing,
    open_lanes_come_by_deadline,
    many_large_lanes_hide_no_small_one_and_no_owners,
    the_lanes_of_one_model_hide_no_other,
    a_claimed_lane_is_not_open,
    the_backlog_has_claimed_rows_too_and_those_of_no_batch_that_ended,
);

async fn a_claim_moves_the_cursor(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[10]).await?;
    let lane = storage.open_lane(batch.id).await?;

    let lease = storage.claim(&lane, 4, DaemonId::new()).await?.expect("nobody else claims");

    let expected = Lease {
        id: lease.id,
        batch_id: batch.id,
        model: "model-0".to_owned(),
        first: 0,
        last: 4,
        token: 1,
        owed: 4,
        deaths: 0,
    };
    assert_eq!(lease, expected);
    let moved = storage.open_lane(batch.id).await?;
    assert_eq!((moved.next, moved.last), (4, 10));
    Ok(())
}

async fn claims_cover_a_lane_without_gap_or_overlap(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[7, 5]).await?;
    let daemon = DaemonId::new();

    let mut leases = Vec::new();
    for rows in [3, 1, 3, 2, 3] {
        leases.push(storage.claimed(batch.id, rows, daemon).await?);
    }

    assert_covered(&mut leases, 12);
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    Ok(())
}

async fn claims_at_the_same_time_cover_a_lane_without_gap_or_overlap(storage: TestStorage) -> Result<()> {
    storage.running(&[1000]).await?;
    let claim_all = async || -> Result<Vec<Lease>> {
        let daemon = DaemonId::new();
        let mut leases = Vec::new();
        while let Some(lane) = storage.open_lanes(1, 1).await?.pop() {
            leases.extend(storage.claim(&lane, lane.waiting().min(7), daemon).await?);
        }
        Ok(leases)
    };

    let claimers: Vec<Vec<Lease>> = join_all((0..8).map(|_| claim_all())).await.into_iter().collect::<Result<_>>()?;

    assert_covered(&mut claimers.concat(), 1000);
    Ok(())
}

async fn a_claim_that_saw_an_old_cursor_gets_nothing(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[10]).await?;
    let seen = storage.open_lane(batch.id).await?;
    storage.claimed(batch.id, 4, DaemonId::new()).await?;

    let claimed = storage.claim(&seen, 4, DaemonId::new()).await?;

    assert_eq!(claimed, None);
    assert_eq!(storage.open_lane(batch.id).await?.next, 4);
    Ok(())
}

async fn a_claim_beyond_the_end_of_the_lane_gets_nothing(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[10, 10]).await?;
    let lane = storage.open_lane(batch.id).await?;

    assert_eq!(storage.claim(&lane, 11, DaemonId::new()).await?, None);

    assert_eq!(storage.open_lane(batch.id).await?, lane);
    Ok(())
}

async fn a_claim_on_a_batch_that_was_called_off_gets_nothing(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[10]).await?;
    let lane = storage.open_lane(batch.id).await?;
    storage.cancel_batch(&OWNER, batch.id, after(1)).await?;

    assert_eq!(storage.claim(&lane, 1, DaemonId::new()).await?, None);
    Ok(())
}

async fn a_claim_on_a_batch_whose_window_closed_gets_nothing(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[10]).await?;
    let lane = storage.open_lane(batch.id).await?;
    storage.expire_batches(batch.expires_at, 10).await?;

    assert_eq!(storage.claim(&lane, 1, DaemonId::new()).await?, None);
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    Ok(())
}

async fn open_lanes_come_by_deadline(storage: TestStorage) -> Result<()> {
    let late = storage.created(&OWNER, &new_batch(), after(60)).await?;
    let soon = storage.created(&OWNER, &new_batch(), after(0)).await?;
    storage.admit_batch(late.id, &lanes(&[1, 1]), START).await?;
    storage.admit_batch(soon.id, &lanes(&[1, 1]), START).await?;

    let first_three = storage.open_lanes(3, 3).await?;

    let order: Vec<_> = first_three.iter().map(|lane| (lane.batch_id, lane.no)).collect();
    assert_eq!(order, [(soon.id, 0), (soon.id, 1), (late.id, 0)]);
    Ok(())
}

async fn many_large_lanes_hide_no_small_one_and_no_owners(storage: TestStorage) -> Result<()> {
    for _ in 0..4 {
        storage.running(&[1_000]).await?;
    }
    let small = storage.created(&OWNER, &new_batch(), after(60)).await?;
    storage.admit_batch(small.id, &lanes(&[1]), START).await?;
    let of_other = storage.created(&Owner::parse("other").expect("an id"), &new_batch(), after(120)).await?;
    storage.admit_batch(of_other.id, &lanes(&[2_000]), START).await?;

    let open = storage.open_lanes(1, 10).await?;

    let batches: Vec<_> = open.iter().map(|lane| lane.batch_id).collect();
    assert_eq!(batches.len(), 3, "the first and the smallest of one owner, and the only one of the other");
    assert!(batches.contains(&small.id) && batches.contains(&of_other.id));
    Ok(())
}

async fn the_lanes_of_one_model_hide_no_other(storage: TestStorage) -> Result<()> {
    let mut of_one_model = Vec::new();
    for _ in 0..4 {
        of_one_model.push(storage.running(&[1]).await?.id);
    }
    let another = storage.created(&OWNER, &new_batch(), after(60)).await?;
    storage.admit_batch(another.id, &[NewLane { model: "another".to_owned(), first: 0, last: 1 }], START).await?;

    let open = async |of_a_model, limit| -> Result<Vec<(BatchId, String)>> {
        let lanes = storage.open_lanes(of_a_model, limit).await?;
        Ok(lanes.into_iter().map(|lane| (lane.batch_id, lane.model.to_string())).collect())
    };

    let first = (of_one_model[0], "model-0".to_owned());
    let second = (of_one_model[1], "model-0".to_owned());
    let another = (another.id, "another".to_owned());
    assert_eq!(open(2, 10).await?, [first.clone(), another.clone(), second]);
    assert_eq!(open(10, 2).await?, [first, another]);
    Ok(())
}

async fn a_claimed_lane_is_not_open(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[2, 2]).await?;

    storage.claimed(batch.id, 2, DaemonId::new()).await?;

    let open: Vec<u32> = storage.open_lanes(10, 10).await?.iter().map(|lane| lane.no).collect();
    assert_eq!(open, [1]);
    Ok(())
}

async fn the_backlog_has_claimed_rows_too_and_those_of_no_batch_that_ended(storage: TestStorage) -> Result<()> {
    let late = storage.created(&OWNER, &new_batch(), after(60)).await?;
    storage.admit_batch(late.id, &lanes(&[5, 1]), START).await?;
    let soon = storage.running(&[4]).await?;
    storage.claimed(soon.id, 3, DaemonId::new()).await?;
    let gone = storage.running(&[100]).await?;
    storage.cancel_batch(&OWNER, gone.id, after(1)).await?;

    let backlogs = storage.backlogs(10).await?;

    let of = |model: &str, rows, oldest: &Batch, first: &Batch| ModelBacklog {
        model: model.to_owned(),
        rows,
        oldest_created_at: oldest.created_at,
        first_expires_at: first.expires_at,
    };
    assert_eq!(backlogs, [of("model-0", 9, &soon, &soon), of("model-1", 1, &late, &late)]);
    assert_eq!(storage.backlogs(1).await?.len(), 1);
    Ok(())
}

//! Batches: creation, admission, lists and the end of the window.

use std::collections::BTreeSet;
use std::time::Duration;

use batchwright::domain::batch::{Batch, BatchError, BatchStatus, Counts, Milestones, NewBatch, Window};
use batchwright::domain::endpoint::Endpoint;
use batchwright::domain::ids::{BatchId, DaemonId};
use batchwright::domain::page::{Order, PageRequest};
use batchwright::domain::usage::Usage;
use batchwright::storage::{BatchStore as _, LeaseStore as _, Result};
use futures::future::join_all;

use crate::given::{EVERY_STATUS, OWNER, START, TestStorage, WINDOW, after, all, lanes, new_batch};

on_both_databases!(
    a_created_batch_waits_for_validation_with_zero_counts,
    a_batch_that_never_was_is_not_found,
    the_same_key_gives_the_first_batch,
    the_same_key_at_the_same_time_makes_one_batch,
    other_keys_and_no_keys_make_batches_of_their_own,
    an_admitted_batch_is_in_progress_with_its_total,
    an_admitted_batch_has_its_lanes_open,
    a_batch_of_one_lane_names_its_model,
    a_batch_without_one_model_names_none,
    a_refused_batch_has_failed_with_its_errors,
    a_batch_is_admitted_only_from_validating,
    a_batch_is_refused_only_from_validating,
    batches_are_admitted_by_deadline,
    batches_are_finished_by_deadline,
    batches_are_listed_in_both_orders,
    pages_visit_each_batch_once_in_both_orders,
    a_page_of_no_batches_is_empty,
    a_page_after_an_unknown_batch_is_empty,
    only_overdue_batches_in_progress_expire,
    a_batch_expires_at_the_end_of_its_window_and_not_before,
    batches_expire_up_to_the_limit,
);

fn with_key(key: &str) -> NewBatch {
    NewBatch { idempotency_key: Some(key.to_owned()), ..new_batch() }
}

fn with_window(hours: u64) -> NewBatch {
    NewBatch { window: Window { text: format!("{hours}h"), length: Duration::from_hours(hours) }, ..new_batch() }
}

fn ids(batches: &[Batch]) -> Vec<BatchId> {
    batches.iter().map(|batch| batch.id).collect()
}

async fn a_created_batch_waits_for_validation_with_zero_counts(storage: TestStorage) -> Result<()> {
    let new = NewBatch {
        input_file_id: "no file at all".to_owned(),
        metadata: Some(r#"{"task":"überall"}"#.to_owned()),
        output_expires_after: Some(Duration::from_hours(1)),
        ..new_batch()
    };

    let batch = storage.created(&OWNER, &new, START).await?;

    let expected = Batch {
        id: batch.id,
        owner: OWNER.clone(),
        input_file_id: "no file at all".to_owned(),
        endpoint: Endpoint::ChatCompletions.into(),
        completion_window: "24h".to_owned(),
        status: BatchStatus::Validating,
        created_at: START,
        expires_at: START.plus(WINDOW),
        milestones: Milestones::default(),
        model: None,
        counts: Counts::default(),
        usage: Usage::default(),
        metadata: new.metadata,
        errors: Vec::new(),
        output_file_id: batch.output_file_id,
        error_file_id: batch.error_file_id,
        output_expires_after: new.output_expires_after,
        pause: None,
        retry: None,
        webhook_url: None,
    };
    assert_eq!(batch, expected);
    assert_ne!(batch.output_file_id, batch.error_file_id);
    assert_eq!(storage.batch(&OWNER, batch.id).await?, Some(expected));
    Ok(())
}

async fn a_batch_that_never_was_is_not_found(storage: TestStorage) -> Result<()> {
    let id = BatchId::new();

    assert_eq!(storage.batch(&OWNER, id).await?, None);
    assert_eq!(storage.cancel_batch(&OWNER, id, START).await?, None);
    assert!(!storage.admit_batch(id, &lanes(&[1]), START).await?);
    assert!(!storage.refuse_batch(id, &[], START).await?);
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    Ok(())
}

async fn the_same_key_gives_the_first_batch(storage: TestStorage) -> Result<()> {
    let first = storage.created(&OWNER, &with_key("once"), START).await?;
    storage.cancel_batch(&OWNER, first.id, after(1)).await?;

    let second = storage.created(&OWNER, &with_key("once"), after(2)).await?;

    assert_eq!(second, storage.now(first.id).await?);
    assert_eq!(storage.batches(&OWNER, &all(Order::Descending)).await?.data, [second]);
    Ok(())
}

async fn the_same_key_at_the_same_time_makes_one_batch(storage: TestStorage) -> Result<()> {
    let new = with_key("once");

    let creations = (0..8).map(|_| storage.created(&OWNER, &new, START));
    let batches: Vec<Batch> = join_all(creations).await.into_iter().collect::<Result<_>>()?;

    let made = storage.batches(&OWNER, &all(Order::Descending)).await?.data;
    assert_eq!(made.len(), 1);
    assert!(batches.iter().all(|batch| *batch == made[0]));
    Ok(())
}

async fn other_keys_and_no_keys_make_batches_of_their_own(storage: TestStorage) -> Result<()> {
    let mut made = BTreeSet::new();

    for new in [with_key("a"), with_key("b"), new_batch(), new_batch()] {
        made.insert(storage.created(&OWNER, &new, START).await?.id);
    }

    assert_eq!(made.len(), 4);
    Ok(())
}

async fn an_admitted_batch_is_in_progress_with_its_total(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;

    assert!(storage.admit_batch(batch.id, &lanes(&[3, 2]), after(1)).await?);

    let expected = Batch {
        status: BatchStatus::InProgress,
        milestones: Milestones { in_progress_at: Some(after(1)), ..Milestones::default() },
        counts: Counts { total: 5, completed: 0, failed: 0 },
        ..batch
    };
    assert_eq!(storage.now(expected.id).await?, expected);
    Ok(())
}

async fn an_admitted_batch_has_its_lanes_open(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;

    storage.admit_batch(batch.id, &lanes(&[3, 2]), after(1)).await?;

    let open = storage.open_lanes(10, 10).await?;
    let ranges: Vec<_> = open.iter().map(|lane| (lane.batch_id, lane.no, lane.next, lane.last)).collect();
    assert_eq!(ranges, [(batch.id, 0, 0, 3), (batch.id, 1, 3, 5)]);
    assert!(open.iter().all(|lane| lane.expires_at == batch.expires_at));
    for (lane, model) in open.iter().zip(["model-0", "model-1"]) {
        let lease = storage.claim(lane, 1, DaemonId::new()).await?.expect("nobody else claims");
        assert_eq!(lease.model, model);
    }
    Ok(())
}

async fn a_batch_of_one_lane_names_its_model(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    assert_eq!(batch.model.as_deref(), Some("model-0"));
    Ok(())
}

async fn a_batch_without_one_model_names_none(storage: TestStorage) -> Result<()> {
    let several = storage.running(&[3, 2]).await?;
    let nameless = storage.validating().await?;
    let mut lane = lanes(&[1]);
    lane[0].model.clear();
    storage.admit_batch(nameless.id, &lane, START).await?;

    assert_eq!(several.model, None);
    assert_eq!(storage.now(nameless.id).await?.model, None);
    Ok(())
}

async fn a_refused_batch_has_failed_with_its_errors(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;
    let errors = vec![
        BatchError { code: "empty_file".to_owned(), message: "No \"rows\".".to_owned(), param: None, line: None },
        BatchError { code: "x".to_owned(), message: String::new(), param: Some("url".to_owned()), line: Some(7) },
    ];

    assert!(storage.refuse_batch(batch.id, &errors, after(1)).await?);

    let expected = Batch {
        status: BatchStatus::Failed,
        milestones: Milestones { failed_at: Some(after(1)), ..Milestones::default() },
        errors,
        ..batch
    };
    assert_eq!(storage.now(expected.id).await?, expected);
    Ok(())
}

async fn a_batch_is_admitted_only_from_validating(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS.into_iter().filter(|status| *status != BatchStatus::Validating) {
        let batch = storage.batch_in(status).await?;
        let open = storage.open_lanes(100, 100).await?;

        assert!(!storage.admit_batch(batch.id, &lanes(&[4, 4]), after(9)).await?, "{status}");

        assert_eq!(storage.now(batch.id).await?, batch);
        assert_eq!(storage.open_lanes(100, 100).await?, open);
    }
    Ok(())
}

async fn a_batch_is_refused_only_from_validating(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS.into_iter().filter(|status| *status != BatchStatus::Validating) {
        let batch = storage.batch_in(status).await?;

        assert!(!storage.refuse_batch(batch.id, &[], after(9)).await?, "{status}");

        assert_eq!(storage.now(batch.id).await?, batch);
    }
    Ok(())
}

async fn batches_are_admitted_by_deadline(storage: TestStorage) -> Result<()> {
    let late = storage.created(&OWNER, &with_window(3), START).await?;
    let soon = storage.created(&OWNER, &with_window(1), START).await?;
    let later = storage.created(&OWNER, &with_window(2), START).await?;
    storage.running(&[1]).await?;

    let first_two = storage.to_admit(2).await?;
    let everything = storage.to_admit(10).await?;

    assert_eq!(ids(&first_two), [soon.id, later.id]);
    assert_eq!(everything, [soon, later, late]);
    Ok(())
}

async fn batches_are_finished_by_deadline(storage: TestStorage) -> Result<()> {
    let late = storage.created(&OWNER, &with_window(3), START).await?;
    storage.cancel_batch(&OWNER, late.id, after(1)).await?;
    let soon = storage.created(&OWNER, &with_window(1), START).await?;
    storage.admit_batch(soon.id, &lanes(&[1]), START).await?;
    storage.expire_batches(soon.expires_at, 1).await?;
    storage.running(&[1]).await?;

    let first = storage.to_finish(1).await?;
    let everything = storage.to_finish(10).await?;

    assert_eq!(first, [storage.now(soon.id).await?]);
    assert_eq!(ids(&everything), [soon.id, late.id]);
    Ok(())
}

async fn batches_are_listed_in_both_orders(storage: TestStorage) -> Result<()> {
    let first = storage.validating().await?;
    let second = storage.running(&[1]).await?;
    let third = storage.validating().await?;

    let oldest_first = storage.batches(&OWNER, &all(Order::Ascending)).await?;
    let newest_first = storage.batches(&OWNER, &all(Order::Descending)).await?;

    assert_eq!(oldest_first.data, [first.clone(), second.clone(), third.clone()]);
    assert_eq!(newest_first.data, [third, second, first]);
    Ok(())
}

async fn pages_visit_each_batch_once_in_both_orders(storage: TestStorage) -> Result<()> {
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(storage.validating().await?.id);
    }

    for order in [Order::Ascending, Order::Descending] {
        let mut read = Vec::new();
        loop {
            let page = storage.batches(&OWNER, &PageRequest { after: read.last().copied(), limit: 3, order }).await?;
            read.extend(ids(&page.data));
            assert!(read.len() <= 7, "the pages go round in circles");
            if !page.has_more {
                break;
            }
        }

        assert_eq!(read, made);
        made.reverse();
    }
    Ok(())
}

async fn a_page_of_no_batches_is_empty(storage: TestStorage) -> Result<()> {
    storage.validating().await?;

    let page = storage.batches(&OWNER, &PageRequest { after: None, limit: 0, order: Order::Descending }).await?;

    assert_eq!((page.data.len(), page.has_more), (0, false));
    Ok(())
}

async fn a_page_after_an_unknown_batch_is_empty(storage: TestStorage) -> Result<()> {
    storage.validating().await?;
    let unknown = PageRequest { after: Some(BatchId::new()), limit: 10, order: Order::Descending };

    let page = storage.batches(&OWNER, &unknown).await?;

    assert_eq!((page.data.len(), page.has_more), (0, false));
    Ok(())
}

async fn only_overdue_batches_in_progress_expire(storage: TestStorage) -> Result<()> {
    let mut others = Vec::new();
    for status in EVERY_STATUS.into_iter().filter(|status| *status != BatchStatus::InProgress) {
        others.push(storage.batch_in(status).await?);
    }
    let overdue = storage.running(&[3]).await?;
    let in_time = storage.created(&OWNER, &with_window(48), START).await?;
    storage.admit_batch(in_time.id, &lanes(&[3]), START).await?;
    let in_time = storage.now(in_time.id).await?;
    let now = after(25 * 3600);

    assert_eq!(storage.expire_batches(now, 100).await?, 1);

    let milestones = Milestones { finalizing_at: Some(now), ..overdue.milestones };
    let expected = Batch { status: BatchStatus::Finalizing, milestones, ..overdue };
    assert_eq!(storage.now(expected.id).await?, expected);
    assert_eq!(storage.now(in_time.id).await?, in_time);
    for other in others {
        assert_eq!(storage.now(other.id).await?, other);
    }
    Ok(())
}

async fn a_batch_expires_at_the_end_of_its_window_and_not_before(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    let second_before = storage.expire_batches(after(24 * 3600 - 1), 100).await?;
    let at_the_end = storage.expire_batches(batch.expires_at, 100).await?;
    let once_more = storage.expire_batches(batch.expires_at, 100).await?;

    assert_eq!((second_before, at_the_end, once_more), (0, 1, 0));
    Ok(())
}

async fn batches_expire_up_to_the_limit(storage: TestStorage) -> Result<()> {
    for _ in 0..3 {
        storage.running(&[1]).await?;
    }
    let now = START.plus(WINDOW);

    let mut expired = Vec::new();
    for _ in 0..3 {
        expired.push(storage.expire_batches(now, 2).await?);
    }

    assert_eq!(expired, [2, 1, 0]);
    Ok(())
}

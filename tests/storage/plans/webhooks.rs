//! The same of the outbox of webhooks.

use batchwright::domain::ids::{BatchId, DaemonId, DeliveryId};
use batchwright::domain::webhook::TryVerdict;
use batchwright::storage::{DeliveryTry, Result, WebhookStore as _};

use super::statements::{assert_found_by, sent};
use crate::given::{START, TestStorage};

on_both_databases!(
    receivers_with_something_due_are_found_by_index,
    deliveries_to_a_receiver_are_found_by_index,
    a_delivery_is_found_by_its_id,
    the_event_of_a_batch_is_found_by_index,
    deliveries_to_forget_are_found_by_index,
);

async fn receivers_with_something_due_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.due_receivers(START, 10)).await?;

    assert_found_by(&storage.place, &["webhook_deliveries_pending"], statements).await;
    Ok(())
}

async fn deliveries_to_a_receiver_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.due_deliveries("a", DaemonId::new(), START, 10)).await?;

    assert_found_by(&storage.place, &["webhook_deliveries_pending"], statements).await;
    Ok(())
}

async fn a_delivery_is_found_by_its_id(storage: TestStorage) -> Result<()> {
    let (daemon, id) = (DaemonId::new(), DeliveryId::new());
    let tried = DeliveryTry { id, no: 1, daemon };

    let begun = sent(storage.begin_try(id, 0, daemon)).await?;
    let ended = sent(storage.end_try(tried, &TryVerdict::Delivered, START)).await?;
    let listed = sent(storage.deliveries(None, 10)).await?;

    for statements in [begun, ended, listed] {
        // An empty table has all of its few pages in either index.
        let by_id = ["autoindex_webhook_deliveries_1", "webhook_deliveries_pkey", "webhook_deliveries_pending"];
        assert_found_by(&storage.place, &by_id, statements).await;
    }
    Ok(())
}

async fn the_event_of_a_batch_is_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.replay(BatchId::new(), START)).await?;

    let by_batch = ["autoindex_webhook_deliveries_2", "webhook_deliveries_batch_id_receiver_key"];
    assert_found_by(&storage.place, &by_batch, statements).await;
    Ok(())
}

async fn deliveries_to_forget_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.forget_deliveries(START, 10)).await?;

    assert_found_by(&storage.place, &["webhook_deliveries_by_age"], statements).await;
    Ok(())
}

//! The outbox of webhooks: written when a batch ends, and worked on by one daemon at a time.

use std::time::Duration;

use batchwright::domain::batch::{BatchStatus, NewBatch};
use batchwright::domain::ids::{BatchId, DaemonId, DeliveryId};
use batchwright::domain::owner::Owner;
use batchwright::domain::time::Timestamp;
use batchwright::domain::webhook::{
    BatchWebhook, DeliveryState, DeliveryTarget, SigningSecret, Subscription, TryVerdict, WebhookDelivery, WebhookEvent,
};
use batchwright::storage::sql::SqlStorage;
use batchwright::storage::{BatchStore as _, DeliveryTry, Ledger as _, Result, WebhookStore as _};

use crate::given::{EVERY_STATUS, OWNER, START, TestStorage, after, ending, new_batch};

on_both_databases!(
    every_end_of_a_batch_is_told_to_its_receiver_once,
    a_receiver_of_the_settings_is_told_its_events_of_its_owner,
    a_try_belongs_to_one_daemon_until_that_dies,
    the_outcome_of_a_try_that_was_taken_over_is_not_recorded,
    a_dead_daemon_begins_no_try,
    a_failed_try_is_due_again_after_its_pause,
    what_has_ended_is_tried_no_more_and_forgotten_after_a_week,
    a_replay_begins_anew_and_keeps_the_id,
    receivers_are_listed_once_however_many_deliveries_they_have,
    an_event_outlives_its_batch,
);

const WEEK: u64 = 7 * 24 * 3600;
const RECEIVER: &str = "https://hooks.example.com of default";

fn webhook(url: &str) -> BatchWebhook {
    BatchWebhook { url: url.to_owned(), secret: SigningSecret::parse("whsec_aGVsbG8=").expect("a secret") }
}

/// A batch whose end is told to this URL.
fn told(url: &str) -> NewBatch {
    NewBatch { webhook: Some(webhook(url)), ..new_batch() }
}

/// A batch that was refused, whose end is told to [`RECEIVER`].
async fn ended(storage: &TestStorage) -> Result<BatchId> {
    Ok(storage.made_in(BatchStatus::Failed, &told("https://hooks.example.com/x")).await?.id)
}

async fn due(storage: &SqlStorage, daemon: DaemonId, now: Timestamp) -> Result<Vec<WebhookDelivery>> {
    let mut due = Vec::new();
    for receiver in storage.due_receivers(now, 100).await? {
        let page = storage.due_deliveries(&receiver, daemon, now, 100).await?;
        due.extend(page.items.into_iter().map(|(_, item)| item.expect("it can be read")));
    }
    Ok(due)
}

async fn only_due(storage: &SqlStorage, daemon: DaemonId, now: Timestamp) -> Result<WebhookDelivery> {
    let mut due = due(storage, daemon, now).await?;
    assert_eq!(due.len(), 1, "{due:?}");
    Ok(due.remove(0))
}

async fn begun(storage: &SqlStorage, delivery: &WebhookDelivery, daemon: DaemonId) -> Result<DeliveryTry> {
    Ok(storage.begin_try(delivery.id, delivery.tries, daemon).await?.expect("nobody else tries it"))
}

async fn state(storage: &SqlStorage, id: DeliveryId) -> Result<(DeliveryState, u32, Option<String>)> {
    let records = storage.deliveries(None, 100).await?;
    let record = records.into_iter().find(|record| record.id == id).expect("it is there");
    Ok((record.state, record.tries, record.error))
}

fn again(seconds: u64) -> TryVerdict {
    TryVerdict::Again(Duration::from_secs(seconds), "it answered with status 500".to_owned())
}

async fn every_end_of_a_batch_is_told_to_its_receiver_once(storage: TestStorage) -> Result<()> {
    let daemon = DaemonId::new();
    for status in EVERY_STATUS {
        let batch = storage.made_in(status, &told("https://hooks.example.com:443/x?key=1")).await?;
        assert_eq!(batch.webhook_url.as_deref(), Some("https://hooks.example.com:443/x?key=1"));

        let due = due(&storage, daemon, after(9)).await?;
        let of_batch: Vec<_> = due.iter().filter(|delivery| delivery.batch == batch.id).collect();

        let expected: Vec<WebhookEvent> = WebhookEvent::of(status).into_iter().collect();
        assert_eq!(of_batch.iter().map(|delivery| delivery.event).collect::<Vec<_>>(), expected, "{status}");
        for delivery in of_batch {
            assert_eq!(delivery.target, DeliveryTarget::OfBatch(webhook("https://hooks.example.com:443/x?key=1")));
        }
        if status == BatchStatus::Failed {
            assert!(!storage.refuse_batch(batch.id, &[], after(3)).await?);
        } else if status.is_terminal() {
            assert!(!storage.finish(&ending(&batch, 0..0), after(3)).await?);
        }
    }
    let records = storage.deliveries(None, 100).await?;
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|record| record.receiver == RECEIVER), "{records:?}");
    Ok(())
}

async fn a_receiver_of_the_settings_is_told_its_events_of_its_owner(storage: TestStorage) -> Result<()> {
    let subscription = |receiver: &str, owner: Option<&str>, events: &[WebhookEvent]| Subscription {
        receiver: receiver.to_owned(),
        owner: owner.map(|owner| Owner::parse(owner).expect("an owner")),
        events: events.to_vec(),
    };
    let announcing = storage.place.open().await?.announcing(vec![
        subscription("all", None, &WebhookEvent::ALL),
        subscription("own", Some(OWNER.as_str()), &[WebhookEvent::Failed]),
        subscription("other-event", None, &[WebhookEvent::Completed]),
        subscription("other-owner", Some("somebody"), &WebhookEvent::ALL),
    ]);
    let batch = announcing.create_batch(&OWNER, &told("https://hooks.example.com/"), START).await?;
    let batch = batch.expect("it has no key");

    assert!(announcing.refuse_batch(batch.id, &[], after(1)).await?);

    assert_eq!(storage.due_receivers(after(1), 100).await?, ["all", RECEIVER, "own"]);
    let due = due(&storage, DaemonId::new(), after(1)).await?;
    assert_eq!(due[0].target, DeliveryTarget::OfSettings("all".to_owned()));
    Ok(())
}

async fn a_try_belongs_to_one_daemon_until_that_dies(storage: TestStorage) -> Result<()> {
    ended(&storage).await?;
    let (one, other) = (storage.living_daemon().await?, storage.living_daemon().await?);
    let delivery = only_due(&storage, one, after(9)).await?;

    let first = begun(&storage, &delivery, one).await?;

    assert_eq!(storage.begin_try(delivery.id, delivery.tries, other).await?, None, "it was begun");
    assert_eq!(storage.begin_try(delivery.id, first.no, other).await?, None, "the other lives");
    assert_eq!(due(&storage, other, after(9)).await?, []);
    storage.let_die(one).await?;
    let taken_over = only_due(&storage, other, after(9)).await?;
    assert_eq!((taken_over.id, taken_over.tries), (delivery.id, 1));
    assert_eq!(begun(&storage, &taken_over, other).await?.no, 2);
    Ok(())
}

async fn the_outcome_of_a_try_that_was_taken_over_is_not_recorded(storage: TestStorage) -> Result<()> {
    ended(&storage).await?;
    let (one, other) = (storage.living_daemon().await?, storage.living_daemon().await?);
    let first = begun(&storage, &only_due(&storage, one, after(9)).await?, one).await?;
    storage.let_die(one).await?;
    let second = begun(&storage, &only_due(&storage, other, after(9)).await?, other).await?;

    assert!(!storage.end_try(first, &TryVerdict::GivenUp("late".to_owned()), after(10)).await?);
    assert!(storage.end_try(second, &TryVerdict::Delivered, after(11)).await?);
    assert!(!storage.end_try(second, &again(5), after(12)).await?, "it has ended");

    assert_eq!(state(&storage, second.id).await?, (DeliveryState::Delivered, 2, None));
    Ok(())
}

async fn a_dead_daemon_begins_no_try(storage: TestStorage) -> Result<()> {
    ended(&storage).await?;
    let delivery = only_due(&storage, DaemonId::new(), after(9)).await?;

    assert_eq!(storage.begin_try(delivery.id, delivery.tries, DaemonId::new()).await?, None);
    Ok(())
}

async fn a_failed_try_is_due_again_after_its_pause(storage: TestStorage) -> Result<()> {
    ended(&storage).await?;
    let (daemon, other) = (storage.living_daemon().await?, storage.living_daemon().await?);
    let first = begun(&storage, &only_due(&storage, daemon, after(9)).await?, daemon).await?;

    assert!(storage.end_try(first, &again(5), after(10)).await?);

    assert_eq!(storage.due_receivers(after(14), 100).await?, Vec::<String>::new());
    let second = only_due(&storage, other, after(15)).await?;
    assert_eq!((second.id, second.tries), (first.id, 1));
    let why = Some("it answered with status 500".to_owned());
    assert_eq!(state(&storage, first.id).await?, (DeliveryState::Pending, 1, why));
    Ok(())
}

async fn what_has_ended_is_tried_no_more_and_forgotten_after_a_week(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    for verdict in [TryVerdict::Delivered, TryVerdict::GivenUp("status 410".to_owned())] {
        ended(&storage).await?;
        let tried = begun(&storage, &only_due(&storage, daemon, after(9)).await?, daemon).await?;
        assert!(storage.end_try(tried, &verdict, after(10)).await?);
    }
    ended(&storage).await?;

    assert_eq!(storage.forget_deliveries(after(9 + WEEK), 100).await?, 0);
    assert_eq!(storage.forget_deliveries(after(10 + WEEK), 1).await?, 1);
    assert_eq!(storage.forget_deliveries(after(10 + WEEK), 100).await?, 1);
    // Nobody has tried the last one.
    only_due(&storage, daemon, after(10 + WEEK)).await?;
    assert_eq!(storage.forget_deliveries(after(5 * WEEK), 100).await?, 1);
    Ok(())
}

async fn a_replay_begins_anew_and_keeps_the_id(storage: TestStorage) -> Result<()> {
    let batch = ended(&storage).await?;
    let daemon = storage.living_daemon().await?;
    let delivery = only_due(&storage, daemon, after(9)).await?;
    let tried = begun(&storage, &delivery, daemon).await?;
    assert!(storage.end_try(tried, &TryVerdict::Delivered, after(10)).await?);

    assert_eq!(storage.replay(batch, after(3600)).await?, 1);
    assert_eq!(storage.replay(BatchId::new(), after(3600)).await?, 0);

    assert_eq!(due(&storage, daemon, after(3599)).await?, []);
    assert_eq!(only_due(&storage, daemon, after(3600)).await?, delivery);
    assert_eq!(storage.forget_deliveries(after(20 + WEEK), 100).await?, 0, "it is on its way");
    Ok(())
}

async fn receivers_are_listed_once_however_many_deliveries_they_have(storage: TestStorage) -> Result<()> {
    for url in ["https://b.example/1", "https://a.example/", "https://b.example/2", "https://c.example:8443/"] {
        storage.made_in(BatchStatus::Failed, &told(url)).await?;
    }
    let receivers = ["a.example", "b.example", "c.example:8443"].map(|host| format!("https://{host} of default"));

    let mut listed = storage.due_receivers(after(9), 100).await?;
    listed.sort_unstable();

    assert_eq!(listed, receivers);
    assert_eq!(storage.due_receivers(START, 100).await?, Vec::<String>::new(), "before any has ended");
    assert_eq!(due(&storage, DaemonId::new(), after(9)).await?.len(), 4);
    Ok(())
}

async fn an_event_outlives_its_batch(storage: TestStorage) -> Result<()> {
    let batch = ended(&storage).await?;
    crate::schema::execute(&storage.place, "DELETE FROM batches").await.expect("a plain statement");
    let daemon = storage.living_daemon().await?;

    let delivery = only_due(&storage, daemon, after(9)).await?;
    let tried = begun(&storage, &delivery, daemon).await?;

    assert_eq!((delivery.batch, storage.batch(&OWNER, batch).await?), (batch, None));
    assert!(storage.end_try(tried, &TryVerdict::Delivered, after(10)).await?);
    Ok(())
}

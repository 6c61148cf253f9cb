//! Webhooks: what receivers are told of a batch that has ended (contract §10.5).

mod delivery;
mod schedule;
mod secret;

use serde_json::json;

pub use delivery::{DeliveryState, DeliveryTarget, WebhookDelivery, WebhookRecord};
pub use schedule::{TryVerdict, after_failed_try};
pub use secret::{SecretError, SigningSecret};

use super::batch::BatchStatus;
use super::ids::{BatchId, EventId};
use super::owner::Owner;
use super::text_enum::text_enum;
use super::time::Timestamp;

text_enum! {
    /// What a receiver is told: how a batch has ended.
    pub enum WebhookEvent {
        /// Every row has run.
        Completed = "batch.completed",
        /// The input file was refused.
        Failed = "batch.failed",
        /// The window closed before every row had run.
        Expired = "batch.expired",
        /// It was cancelled.
        Cancelled = "batch.cancelled",
    }
}

impl WebhookEvent {
    /// The event of a batch that has reached a status; none if the status is not terminal.
    #[must_use]
    pub fn of(status: BatchStatus) -> Option<Self> {
        match status {
            BatchStatus::Completed => Some(Self::Completed),
            BatchStatus::Failed => Some(Self::Failed),
            BatchStatus::Expired => Some(Self::Expired),
            BatchStatus::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// The body that receivers get. It is the same for every try.
    #[must_use]
    pub fn payload(self, batch: BatchId, created_at: Timestamp) -> String {
        let event = json!({
            "id": EventId::of(batch).to_string(),
            "object": "event",
            "created_at": created_at.seconds(),
            "type": self.as_str(),
            "data": { "id": batch.to_string() },
        });
        event.to_string()
    }
}

/// The receiver that the request for a batch names: it is told how this batch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchWebhook {
    /// Where the event is posted.
    pub url: String,
    /// What signs it.
    pub secret: SigningSecret,
}

/// A receiver of the settings, as far as it decides which events go to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The receiver's name.
    pub receiver: String,
    /// The owner whose batches it is told of; those of all if absent.
    pub owner: Option<Owner>,
    /// The events that it is told.
    pub events: Vec<WebhookEvent>,
}

impl Subscription {
    /// Whether the receiver is told this event of a batch of this owner.
    #[must_use]
    pub fn includes(&self, owner: &str, event: WebhookEvent) -> bool {
        self.owner.as_ref().is_none_or(|only| only.as_str() == owner) && self.events.contains(&event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_terminal_status_has_an_event_and_no_other_has() {
        for status in BatchStatus::ALL {
            let expected = status.is_terminal().then(|| format!("batch.{status}"));
            assert_eq!(WebhookEvent::of(status).map(|event| event.to_string()), expected);
        }
    }

    #[test]
    fn the_payload_is_that_of_openai() {
        let batch = BatchId(uuid::Uuid::from_u128(0xabc));

        let payload = WebhookEvent::Completed.payload(batch, Timestamp(1_750_287_018_999));

        let expected = json!({
            "id": "evt_00000000000000000000000000000abc",
            "object": "event",
            "created_at": 1_750_287_018,
            "type": "batch.completed",
            "data": { "id": "batch_00000000000000000000000000000abc" },
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&payload).unwrap(), expected);
    }

    #[test]
    fn a_subscription_is_for_its_owner_and_its_events() {
        let team = Owner::parse("team").unwrap();
        let all = Subscription { receiver: "ops".to_owned(), owner: None, events: WebhookEvent::ALL.to_vec() };
        let some = Subscription { owner: Some(team), events: vec![WebhookEvent::Failed], ..all.clone() };
        let cases = [
            (&all, "team", WebhookEvent::Expired, true),
            (&some, "team", WebhookEvent::Failed, true),
            (&some, "team", WebhookEvent::Expired, false),
            (&some, "other", WebhookEvent::Failed, false),
        ];
        for (subscription, owner, event, is_told) in cases {
            assert_eq!(subscription.includes(owner, event), is_told, "{owner} {event}");
        }
    }
}

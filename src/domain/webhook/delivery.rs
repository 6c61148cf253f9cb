//! One event on its way to one receiver.

use super::{BatchWebhook, WebhookEvent};
use crate::domain::ids::{BatchId, DeliveryId};
use crate::domain::text_enum::text_enum;
use crate::domain::time::Timestamp;

text_enum! {
    /// How far a delivery is.
    pub enum DeliveryState {
        /// It is tried until the receiver has it.
        Pending = "pending",
        /// The receiver has it.
        Delivered = "delivered",
        /// The receiver did not take it, and it is tried no more.
        Failed = "failed",
    }
}

/// Who receives an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryTarget {
    /// The receiver of the settings with this name.
    OfSettings(String),
    /// The receiver that the request for the batch named.
    OfBatch(BatchWebhook),
}

/// An event that is due for a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// Its id, the same for every try.
    pub id: DeliveryId,
    /// The batch that has ended.
    pub batch: BatchId,
    /// How it has ended.
    pub event: WebhookEvent,
    /// When it ended.
    pub created_at: Timestamp,
    /// Who receives it.
    pub target: DeliveryTarget,
    /// How many tries were begun.
    pub tries: u32,
}

/// A delivery as an operator sees it: without secrets, and of a URL only the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRecord {
    /// Its id.
    pub id: DeliveryId,
    /// The batch that has ended.
    pub batch: BatchId,
    /// How it has ended.
    pub event: WebhookEvent,
    /// When it ended.
    pub created_at: Timestamp,
    /// The name of a receiver of the settings, or the origin of the URL that the request for the batch named with its
    /// project.
    pub receiver: String,
    /// How far it is.
    pub state: DeliveryState,
    /// How many tries were begun.
    pub tries: u32,
    /// When the next try is due, if it is pending.
    pub due_at: Option<Timestamp>,
    /// Why the last try failed.
    pub error: Option<String>,
}

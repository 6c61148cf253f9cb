//! The outbox of webhooks: events of batches that have ended, on their way to receivers.
//!
//! The transaction that ends a batch writes a delivery for each receiver, so no event is lost and none is sent for an
//! end that was rolled back.

use async_trait::async_trait;

use super::{Result, WorkPage};
use crate::domain::ids::{BatchId, DaemonId, DeliveryId};
use crate::domain::time::Timestamp;
use crate::domain::webhook::{TryVerdict, WebhookDelivery, WebhookRecord};

/// A try that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTry {
    /// The delivery.
    pub id: DeliveryId,
    /// The number of the try, counted from 1. It is the fencing token: the outcome of an older try is not recorded.
    pub no: u32,
    /// The daemon that makes it.
    pub daemon: DaemonId,
}

/// Events on their way to receivers. All owners' deliveries are in one list: nothing here is for clients.
#[async_trait]
pub trait WebhookStore {
    /// The receivers that have deliveries due, at most `limit`. Costs as much as there are receivers with pending
    /// deliveries, however many these have.
    async fn due_receivers(&self, now: Timestamp, limit: u32) -> Result<Vec<String>>;

    /// The deliveries to one receiver that are due and that no other living daemon tries, those due first.
    async fn due_deliveries(
        &self,
        receiver: &str,
        daemon: DaemonId,
        now: Timestamp,
        limit: u32,
    ) -> Result<WorkPage<DeliveryId, WebhookDelivery>>;

    /// Begins the next try of a delivery after `tries` others. `None` if another daemon has begun it, or if the
    /// delivery has ended.
    async fn begin_try(&self, id: DeliveryId, tries: u32, daemon: DaemonId) -> Result<Option<DeliveryTry>>;

    /// Records what follows from a try. False, and nothing is done, if a later try was begun meanwhile.
    async fn end_try(&self, tried: DeliveryTry, verdict: &TryVerdict, now: Timestamp) -> Result<bool>;

    /// Forgets up to `limit` deliveries that ended a week ago, and those that no daemon has tried for a month. Returns
    /// how many.
    async fn forget_deliveries(&self, now: Timestamp, limit: u32) -> Result<u64>;

    /// Deliveries, newest first, from behind `after`.
    async fn deliveries(&self, after: Option<DeliveryId>, limit: u32) -> Result<Vec<WebhookRecord>>;

    /// Sends the event of a batch again to all of its receivers, from now on and with all tries. Returns how many
    /// these are.
    async fn replay(&self, batch: BatchId, now: Timestamp) -> Result<u64>;
}

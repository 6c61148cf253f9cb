//! Delivering webhooks: events of batches that have ended are posted to their receivers until these have them.
//!
//! Each receiver has a task of its own, so that one that is slow delays no other, and few calls at once. A delivery
//! belongs to the daemon that tries it. If that daemon dies, others find it among those that are due.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::seq::SliceRandom as _;
use tokio_util::task::TaskTracker;

use super::Duty;
use crate::daemon::core::DaemonCore;
use crate::daemon::items::Items;
use crate::daemon::timer::TickResult;
use crate::domain::ids::DeliveryId;
use crate::domain::webhook::{TryVerdict, WebhookDelivery};
use crate::storage::Storage;
use crate::sync::lock;
use crate::telemetry::chain;
use crate::telemetry::metrics::{self, WebhookTryEnd};
use crate::webhooks::Webhooks;

const EVERY: Duration = Duration::from_secs(1);
/// Receivers that are looked at in one tick.
const RECEIVERS: u32 = 10_000;
/// Receivers that are called at once.
const RECEIVERS_AT_ONCE: usize = 64;
/// Calls of one receiver at once.
const CALLS_AT_ONCE: usize = 4;
/// Deliveries to one receiver in one turn.
const PAGE: u32 = 100;

/// Posts what is due.
pub(super) struct Deliver<S> {
    work: Arc<DeliveryWork<S>>,
    busy: Arc<Mutex<HashSet<String>>>,
    tasks: TaskTracker,
}

struct DeliveryWork<S> {
    shared: Arc<DaemonCore<S>>,
    items: Items<DeliveryId>,
    webhooks: Webhooks,
}

/// A receiver that is being called by this daemon.
struct BusyGuard {
    receiver: String,
    busy: Arc<Mutex<HashSet<String>>>,
}

impl<S> Deliver<S> {
    /// `tasks` has what goes on beside the duty's ticks.
    pub(super) fn new(
        shared: Arc<DaemonCore<S>>,
        items: Items<DeliveryId>,
        webhooks: Webhooks,
        tasks: TaskTracker,
    ) -> Self {
        Self { work: Arc::new(DeliveryWork { shared, items, webhooks }), busy: Arc::default(), tasks }
    }

    /// Takes a receiver for a task, unless it has one or enough have.
    fn take(&self, receiver: String) -> Option<BusyGuard> {
        let mut busy = lock(&self.busy);
        let is_taken = busy.len() < RECEIVERS_AT_ONCE && busy.insert(receiver.clone());
        is_taken.then(|| BusyGuard { receiver, busy: self.busy.clone() })
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        lock(&self.busy).remove(&self.receiver);
    }
}

#[async_trait]
impl<S: Storage> Duty for Deliver<S> {
    fn name(&self) -> &'static str {
        "deliver"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn is_woken(&self) -> bool {
        false
    }

    async fn tick(&self) -> TickResult {
        let DaemonCore { storage, clock, .. } = &*self.work.shared;
        let mut receivers = storage.due_receivers(clock.now(), RECEIVERS).await?;
        receivers.retain(|receiver| self.work.webhooks.has(receiver));
        // If there are more than can be called at once, all have the same chance.
        receivers.shuffle(&mut rand::rng());
        for receiver in receivers {
            let Some(taken) = self.take(receiver) else { continue };
            let work = self.work.clone();
            self.tasks.spawn(async move {
                if let Err(error) = work.deliver_to(&taken.receiver).await {
                    tracing::error!(error = chain(&*error), "webhooks wait: the storage failed");
                }
            });
        }
        Ok(())
    }
}

impl<S: Storage> DeliveryWork<S> {
    async fn deliver_to(&self, receiver: &str) -> TickResult {
        let DaemonCore { storage, clock, id, .. } = &*self.shared;
        let page = storage.due_deliveries(receiver, *id, clock.now(), PAGE).await?;
        self.items.each(page.items, CALLS_AT_ONCE, |_, delivery| self.try_once(receiver, delivery)).await?;
        Ok(())
    }

    async fn try_once(&self, receiver: &str, delivery: WebhookDelivery) -> TickResult {
        let DaemonCore { storage, clock, id, shutdown, .. } = &*self.shared;
        let Some(tried) = storage.begin_try(delivery.id, delivery.tries, *id).await? else { return Ok(()) };
        let verdict = tokio::select! {
            biased;
            // It stays with this daemon, which is about to leave, and then belongs to nobody.
            () = shutdown.abort.cancelled() => return Ok(()),
            verdict = self.webhooks.post(&delivery, tried.no, clock.now()) => verdict,
        };
        if !storage.end_try(tried, &verdict, clock.now()).await? {
            return Ok(());
        }
        let (batch_id, event, tries) = (delivery.batch, delivery.event, tried.no);
        match verdict {
            TryVerdict::Delivered => {
                metrics::webhook_tried(WebhookTryEnd::Delivered);
                tracing::info!(%batch_id, %event, receiver, tries, "webhook delivered");
            }
            TryVerdict::Again(again_in, error) => {
                metrics::webhook_tried(WebhookTryEnd::Retried);
                tracing::warn!(%batch_id, %event, receiver, tries, ?again_in, error, "webhook not delivered yet");
            }
            TryVerdict::GivenUp(error) => {
                metrics::webhook_tried(WebhookTryEnd::Failed);
                tracing::error!(%batch_id, %event, receiver, tries, error, "webhook given up");
            }
        }
        Ok(())
    }
}

//! The outbox of webhooks.

use async_trait::async_trait;
use uuid::Uuid;

use super::readable::readable;
use super::{SqlStorage, corrupt, in_write, on_reader};
use crate::domain::ids::{BatchId, DaemonId, DeliveryId};
use crate::domain::time::Timestamp;
use crate::domain::webhook::{
    BatchWebhook, DeliveryState, DeliveryTarget, SigningSecret, TryVerdict, WebhookDelivery, WebhookEvent,
    WebhookRecord,
};
use crate::storage::{DeliveryTry, Result, StorageError, WebhookStore, WorkPage};

const TABLE: &str = "webhook_deliveries";

/// A batch that this transaction ends.
#[derive(sqlx::FromRow)]
pub(super) struct EndedBatch {
    pub(super) id: Uuid,
    pub(super) status: String,
    pub(super) owner: String,
    pub(super) webhook_url: Option<String>,
    pub(super) webhook_secret: Option<String>,
}

/// The columns of [`DeliveryRow`].
macro_rules! delivery_columns {
    () => {
        "id, batch_id, event, created_at, receiver, url, secret, state, tries, due_at, error"
    };
}

pub(super) use delivery_columns;

#[derive(sqlx::FromRow)]
pub(super) struct DeliveryRow {
    id: Uuid,
    batch_id: Uuid,
    event: String,
    created_at: i64,
    receiver: String,
    url: Option<String>,
    secret: Option<String>,
    state: String,
    tries: i64,
    due_at: i64,
    error: Option<String>,
}

impl DeliveryRow {
    fn event(&self) -> Result<WebhookEvent> {
        WebhookEvent::parse(&self.event).ok_or_else(|| self.corrupt("event"))
    }

    fn tries(&self) -> Result<u32> {
        u32::try_from(self.tries).map_err(|_| self.corrupt("tries"))
    }

    fn corrupt(&self, column: &'static str) -> StorageError {
        corrupt(TABLE, column, DeliveryId(self.id))
    }
}

impl TryFrom<DeliveryRow> for WebhookDelivery {
    type Error = StorageError;

    fn try_from(row: DeliveryRow) -> Result<Self> {
        let (event, tries) = (row.event()?, row.tries()?);
        let secret = row.secret.as_deref().map(SigningSecret::parse).transpose();
        let target = match (&row.url, secret.map_err(|_| row.corrupt("secret"))?) {
            (None, None) => DeliveryTarget::OfSettings(row.receiver),
            (Some(url), Some(secret)) => DeliveryTarget::OfBatch(BatchWebhook { url: url.clone(), secret }),
            _ => return Err(row.corrupt("secret")),
        };
        let (id, batch, created_at) = (DeliveryId(row.id), BatchId(row.batch_id), Timestamp(row.created_at));
        Ok(Self { id, batch, event, created_at, target, tries })
    }
}

impl TryFrom<DeliveryRow> for WebhookRecord {
    type Error = StorageError;

    fn try_from(row: DeliveryRow) -> Result<Self> {
        let state = DeliveryState::parse(&row.state).ok_or_else(|| row.corrupt("state"))?;
        Ok(Self {
            id: DeliveryId(row.id),
            batch: BatchId(row.batch_id),
            event: row.event()?,
            created_at: Timestamp(row.created_at),
            state,
            tries: row.tries()?,
            due_at: (state == DeliveryState::Pending).then_some(Timestamp(row.due_at)),
            receiver: row.receiver,
            error: row.error,
        })
    }
}

#[async_trait]
impl WebhookStore for SqlStorage {
    async fn due_receivers(&self, now: Timestamp, limit: u32) -> Result<Vec<String>> {
        on_reader!(self.db, webhooks::due_receivers(now, limit))
    }

    async fn due_deliveries(
        &self,
        receiver: &str,
        daemon: DaemonId,
        now: Timestamp,
        limit: u32,
    ) -> Result<WorkPage<DeliveryId, WebhookDelivery>> {
        Ok(WorkPage::of(on_reader!(self.db, webhooks::due(receiver, daemon, now, limit))?, limit))
    }

    async fn begin_try(&self, id: DeliveryId, tries: u32, daemon: DaemonId) -> Result<Option<DeliveryTry>> {
        let begun = in_write!(self.db, webhooks::begin_try(id, tries, daemon))?;
        Ok(begun.then_some(DeliveryTry { id, no: tries + 1, daemon }))
    }

    async fn end_try(&self, tried: DeliveryTry, verdict: &TryVerdict, now: Timestamp) -> Result<bool> {
        in_write!(self.db, webhooks::end_try(tried, verdict, now))
    }

    async fn forget_deliveries(&self, now: Timestamp, limit: u32) -> Result<u64> {
        in_write!(self.db, webhooks::forget(now, limit))
    }

    async fn deliveries(&self, after: Option<DeliveryId>, limit: u32) -> Result<Vec<WebhookRecord>> {
        let after = after.map_or(Uuid::max(), |id| id.0);
        Ok(readable(on_reader!(self.db, webhooks::deliveries(after, limit))?))
    }

    async fn replay(&self, batch: BatchId, now: Timestamp) -> Result<u64> {
        in_write!(self.db, webhooks::replay(batch, now))
    }
}

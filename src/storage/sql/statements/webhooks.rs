//! The outbox of webhooks.

use std::time::Duration;

use sqlx::Row as _;
use url::Url;
use uuid::Uuid;

use super::query::{query, query_scalar};
use super::{Conn, Row};
use crate::domain::batch::BatchStatus;
use crate::domain::ids::{BatchId, DaemonId, DeliveryId};
use crate::domain::time::Timestamp;
use crate::domain::webhook::{DeliveryState, Subscription, TryVerdict, WebhookDelivery, WebhookEvent, WebhookRecord};
use crate::storage::sql::readable::{Placed, read_row};
use crate::storage::sql::webhooks::{DeliveryRow, EndedBatch, delivery_columns};
use crate::storage::sql::{End, corrupt};
use crate::storage::{DeliveryTry, Result};

/// How long a delivery is kept once it has ended.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// How long one is kept that no daemon tries, because its receiver is in no settings any more.
const KEPT_UNTRIED: Duration = Duration::from_hours(30 * 24);

const ADD: &str = "
    INSERT INTO webhook_deliveries
        (id, batch_id, owner, event, created_at, receiver, url, secret, state, tries, due_at, forget_after)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'pending', 0, $5, $9)
    ON CONFLICT (batch_id, receiver) DO NOTHING";

const FORGET_SECRET: &str = "UPDATE batches SET webhook_secret = NULL WHERE id = $1";

// The receivers with pending deliveries, found one after the other by their names: few, however many deliveries there
// are.
const DUE_RECEIVERS: &str = "
    WITH RECURSIVE receivers (receiver) AS (
        SELECT (
            SELECT receiver FROM webhook_deliveries WHERE state = 'pending' AND receiver > '' ORDER BY receiver LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT next.receiver FROM webhook_deliveries AS next
            WHERE next.state = 'pending' AND next.receiver > receivers.receiver ORDER BY next.receiver LIMIT 1
        )
        FROM receivers
        WHERE receivers.receiver IS NOT NULL
    )
    SELECT receivers.receiver
    FROM receivers
    WHERE receivers.receiver IS NOT NULL AND EXISTS (
        SELECT 1 FROM webhook_deliveries AS due
        WHERE due.state = 'pending' AND due.receiver = receivers.receiver AND due.due_at <= $1
    )
    LIMIT $2";

/// Deliveries that no other living daemon tries.
macro_rules! free_for {
    ($daemon:literal) => {
        concat!(
            "(holder IS NULL OR holder = ",
            $daemon,
            " OR NOT EXISTS (SELECT 1 FROM daemons WHERE daemons.id = holder))"
        )
    };
}

const DUE: &str = concat!(
    "SELECT ",
    delivery_columns!(),
    " FROM webhook_deliveries
     WHERE state = 'pending' AND receiver = $1 AND due_at <= $3 AND ",
    free_for!("$2"),
    " ORDER BY due_at, id
     LIMIT $4"
);

// A daemon that counts as dead begins none: another would begin it at the same time.
const BEGIN_TRY: &str = concat!(
    "UPDATE webhook_deliveries
     SET tries = tries + 1, holder = $3
     WHERE id = $1 AND tries = $2 AND state = 'pending' AND EXISTS (SELECT 1 FROM daemons WHERE id = $3) AND ",
    free_for!("$3")
);

const END_TRY: &str = "
    UPDATE webhook_deliveries
    SET state = $4, holder = NULL, error = $5, due_at = COALESCE($6, due_at),
        forget_after = COALESCE($7, forget_after)
    WHERE id = $1 AND tries = $2 AND holder = $3 AND state = 'pending'";

const FORGET: &str = "
    DELETE FROM webhook_deliveries
    WHERE id IN (SELECT id FROM webhook_deliveries WHERE forget_after <= $1 ORDER BY forget_after LIMIT $2)";

const DELIVERIES: &str =
    concat!("SELECT ", delivery_columns!(), " FROM webhook_deliveries WHERE id < $1 ORDER BY id DESC LIMIT $2");

// A try that is under way goes on, and is recorded as before.
const REPLAY: &str = "
    UPDATE webhook_deliveries
    SET state = 'pending', tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END, due_at = $2,
        forget_after = $3
    WHERE batch_id = $1";

/// Writes the event that a batch has ended, for each of its receivers. It is part of the transaction that ends the
/// batch.
pub async fn announce_end(
    tx: &mut Conn,
    ended: &EndedBatch,
    subscriptions: &[Subscription],
    now: Timestamp,
) -> Result<()> {
    let Some(event) = BatchStatus::parse(&ended.status).and_then(WebhookEvent::of) else {
        return Err(corrupt("batches", "status", BatchId(ended.id)));
    };
    for told in subscriptions.iter().filter(|told| told.includes(&ended.owner, event)) {
        add(tx, ended, event, &told.receiver, None, now).await?;
    }
    let (Some(url), Some(secret)) = (&ended.webhook_url, &ended.webhook_secret) else { return Ok(()) };
    // Who is told is the origin, because the rest of the URL may be a secret; and that of this project, whose receiver
    // delays those of no other.
    let parsed = Url::parse(url).map_err(|_| corrupt("batches", "webhook_url", BatchId(ended.id)))?;
    let receiver = format!("{} of {}", parsed.origin().ascii_serialization(), ended.owner);
    add(tx, ended, event, &receiver, Some((url, secret)), now).await?;
    query(FORGET_SECRET).bind(ended.id).execute(tx).await?;
    Ok(())
}

async fn add(
    tx: &mut Conn,
    ended: &EndedBatch,
    event: WebhookEvent,
    receiver: &str,
    of_batch: Option<(&String, &String)>,
    now: Timestamp,
) -> Result<()> {
    query(ADD)
        .bind(DeliveryId::new().0)
        .bind(ended.id)
        .bind(&ended.owner)
        .bind(event.as_str())
        .bind(now.0)
        .bind(receiver)
        .bind(of_batch.map(|(url, _)| url))
        .bind(of_batch.map(|(_, secret)| secret))
        .bind(now.plus(KEPT_UNTRIED).0)
        .execute(tx)
        .await?;
    Ok(())
}

pub async fn due_receivers(conn: &mut Conn, now: Timestamp, limit: u32) -> Result<Vec<String>> {
    Ok(query_scalar(DUE_RECEIVERS).bind(now.0).bind(i64::from(limit)).fetch_all(conn).await?)
}

pub async fn due(
    conn: &mut Conn,
    receiver: &str,
    daemon: DaemonId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Placed<(Timestamp, DeliveryId), WebhookDelivery>>> {
    let due = query(DUE).bind(receiver).bind(daemon.0).bind(now.0).bind(i64::from(limit));
    Ok(due.fetch_all(conn).await?.iter().map(placed).collect())
}

fn placed(row: &Row) -> Placed<(Timestamp, DeliveryId), WebhookDelivery> {
    let id: Option<Uuid> = row.try_get("id").ok();
    let due_at: Option<i64> = row.try_get("due_at").ok();
    let place = id.zip(due_at).map(|(id, due_at)| (Timestamp(due_at), DeliveryId(id)));
    Placed { place, read: read(row) }
}

fn read<T: TryFrom<DeliveryRow, Error = crate::storage::StorageError>>(row: &Row) -> Result<T> {
    let id: Option<Uuid> = row.try_get("id").ok();
    read_row::<_, DeliveryRow, T>("webhook_deliveries", id.map(|id| DeliveryId(id).to_string()), row)
}

pub async fn begin_try(tx: &mut Conn, id: DeliveryId, tries: u32, daemon: DaemonId) -> Result<End<bool>> {
    let begun = query(BEGIN_TRY).bind(id.0).bind(i64::from(tries)).bind(daemon.0).execute(tx).await?;
    Ok(End::Commit(begun.rows_affected() == 1))
}

pub async fn end_try(tx: &mut Conn, tried: DeliveryTry, verdict: &TryVerdict, now: Timestamp) -> Result<End<bool>> {
    let (state, error, due_at) = match verdict {
        TryVerdict::Delivered => (DeliveryState::Delivered, None, None),
        TryVerdict::Again(pause, why) => (DeliveryState::Pending, Some(why), Some(now.plus(*pause).0)),
        TryVerdict::GivenUp(why) => (DeliveryState::Failed, Some(why), None),
    };
    let has_ended = state != DeliveryState::Pending;
    let recorded = query(END_TRY)
        .bind(tried.id.0)
        .bind(i64::from(tried.no))
        .bind(tried.daemon.0)
        .bind(state.as_str())
        .bind(error)
        .bind(due_at)
        .bind(has_ended.then(|| now.plus(KEPT).0))
        .execute(tx)
        .await?;
    Ok(End::Commit(recorded.rows_affected() == 1))
}

pub async fn forget(tx: &mut Conn, now: Timestamp, limit: u32) -> Result<End<u64>> {
    let forgotten = query(FORGET).bind(now.0).bind(i64::from(limit)).execute(tx).await?;
    Ok(End::Commit(forgotten.rows_affected()))
}

pub async fn deliveries(conn: &mut Conn, after: Uuid, limit: u32) -> Result<Vec<Result<WebhookRecord>>> {
    let rows = query(DELIVERIES).bind(after).bind(i64::from(limit)).fetch_all(conn).await?;
    Ok(rows.iter().map(read).collect())
}

pub async fn replay(tx: &mut Conn, batch: BatchId, now: Timestamp) -> Result<End<u64>> {
    let replayed = query(REPLAY).bind(batch.0).bind(now.0).bind(now.plus(KEPT_UNTRIED).0).execute(tx).await?;
    Ok(End::Commit(replayed.rows_affected()))
}

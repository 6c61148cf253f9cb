//! `GET /v1/batches/{batch_id}/events`: the batch at each change, until it has ended. An extension: clients of OpenAI's
//! API ask again and again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::progress::BatchProgressObject;
use super::{BatchObject, not_found, parse_id};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, App, AppState, sse};
use crate::domain::batch::Batch;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;

/// How often the batch is read: as often as clients are told of changes.
const EVERY: Duration = Duration::from_secs(1);

/// Follows a batch: an event `batch` with the batch at each change of its status or its counts, and an event `progress`
/// with its progress at each change of that, at most one of each a second; `end` with the batch when it has ended.
///
/// An extension of batchwright: OpenAI's API has no such operation.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/events", tag = "extensions",
    params(("batch_id" = String, Path, pattern = "^batch")),
    responses(
        (status = 200, description = "The events", content((serde_json::Value = "text/event-stream"))),
        (status = 404, body = crate::api::error::ErrorBody),
        (status = 503, description = "Too many clients wait", body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn list_batch_events(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let permit = app.waits.clone().try_acquire_owned().map_err(|_| ApiError::too_many_waits())?;
    let watch = BatchWatch { app: Arc::clone(&app), owner, id: parse_id(&id)?, shown: None, _permit: permit };
    // An error is an answer, and not the end of a stream.
    watch.observe().await?;
    let events = stream::try_unfold(Some(watch), |watch| async move {
        let Some(watch) = watch else { return Ok(None) };
        // Its cause is in the log.
        watch.next().await.map_err(|_| io::Error::other("the batch cannot be read any more"))
    });
    Ok(sse::response(events))
}

/// A batch that a client follows.
struct BatchWatch {
    app: Arc<App>,
    owner: Owner,
    id: BatchId,
    /// The batch and its progress as the client knows them.
    shown: Option<(Batch, String)>,
    _permit: OwnedSemaphorePermit,
}

impl BatchWatch {
    /// The batch and its progress as they are on the wire.
    async fn observe(&self) -> Result<(Batch, String), ApiError> {
        let observed = self.app.observer(&self.owner).observe(self.id).await?;
        let observed = observed.ok_or_else(|| not_found(&self.id.to_string()))?;
        let progress = BatchProgressObject::new(&observed, self.app.prices.as_ref(), false);
        Ok((observed.batch, serde_json::to_string(&progress).expect("a progress serialises")))
    }

    /// The next events, or a sign of life. None if the service stops: the client goes on elsewhere.
    async fn next(mut self) -> Result<Option<(Bytes, Option<Self>)>, ApiError> {
        let silent_since = Instant::now();
        loop {
            if self.shown.is_some() {
                sleep(EVERY).await;
            }
            let (batch, progress) = self.observe().await?;
            let mut events = self.changes(&batch, &progress);
            let has_ended = batch.status.is_terminal();
            if has_ended {
                events.push(sse::event("end", &json(&batch)));
            }
            self.shown = Some((batch, progress));
            let is_over = has_ended || self.app.stopping.is_cancelled();
            if !events.is_empty() {
                return Ok(Some((events.concat().into(), (!is_over).then_some(self))));
            }
            if is_over {
                return Ok(None);
            }
            if silent_since.elapsed() >= sse::HEARTBEAT {
                return Ok(Some((sse::comment(), Some(self))));
            }
        }
    }

    /// One event for each object that the client does not know as it stands.
    fn changes(&self, batch: &Batch, progress: &str) -> Vec<Bytes> {
        let (known_batch, known_progress) =
            self.shown.as_ref().map(|(batch, progress)| (batch, progress.as_str())).unzip();
        let mut events = Vec::new();
        if known_batch != Some(batch) {
            events.push(sse::event("batch", &json(batch)));
        }
        if known_progress != Some(progress) {
            events.push(sse::event("progress", progress));
        }
        events
    }
}

fn json(batch: &Batch) -> String {
    serde_json::to_string(&BatchObject::from(batch.clone())).expect("a batch serialises")
}

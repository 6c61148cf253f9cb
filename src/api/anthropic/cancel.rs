//! `POST /v1/messages/batches/{message_batch_id}/cancel`.

use axum::Json;
use axum::extract::State;

use super::origin::PublicOrigin;
use super::wire::MessageBatchObject;
use super::{find, not_found};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};
use crate::domain::batch::BatchStatus;

/// Cancels a message batch. Requests that have been answered keep their results; the others are `canceled`.
#[utoipa::path(post, path = "/v1/messages/batches/{message_batch_id}/cancel", tag = "message batches",
    params(("message_batch_id" = String, Path,)),
    responses(
        (status = 200, body = MessageBatchObject),
        (status = 400, description = "It has ended", body = super::envelope::MessagesErrorBody),
        (status = 404, body = super::envelope::MessagesErrorBody)
    )
)]
pub(in crate::api) async fn cancel_message_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    origin: PublicOrigin,
    Id(id): Id,
) -> Result<Json<MessageBatchObject>, ApiError> {
    let batch = find(&app, &owner, &id).await?;
    let cancelled = app.storage.cancel_batch(&owner, batch.id, app.clock.now()).await?;
    let batch = cancelled.ok_or_else(|| not_found(&id))?;
    if batch.status.is_terminal() && batch.status != BatchStatus::Cancelled {
        return Err(ApiError::invalid(format!("The message batch '{id}' has ended, so that it cannot be canceled.")));
    }
    app.wakeup.wake();
    Ok(Json(MessageBatchObject::read(&app, batch, &origin).await?))
}

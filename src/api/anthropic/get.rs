//! `GET /v1/messages/batches/{message_batch_id}`.

use axum::Json;
use axum::extract::State;

use super::find;
use super::origin::PublicOrigin;
use super::wire::MessageBatchObject;
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Retrieves a message batch.
#[utoipa::path(get, path = "/v1/messages/batches/{message_batch_id}", tag = "message batches",
    params(("message_batch_id" = String, Path,)),
    responses(
        (status = 200, body = MessageBatchObject),
        (status = 404, body = super::envelope::MessagesErrorBody)
    )
)]
pub(in crate::api) async fn get_message_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    origin: PublicOrigin,
    Id(id): Id,
) -> Result<Json<MessageBatchObject>, ApiError> {
    let batch = find(&app, &owner, &id).await?;
    Ok(Json(MessageBatchObject::read(&app, batch, &origin).await?))
}

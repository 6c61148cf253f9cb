//! `DELETE /v1/messages/batches/{message_batch_id}`.

use axum::Json;
use axum::extract::State;

use super::find;
use super::wire::DeletedMessageBatch;
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};

/// Deletes a message batch that has ended, with its requests and results.
#[utoipa::path(delete, path = "/v1/messages/batches/{message_batch_id}", tag = "message batches",
    params(("message_batch_id" = String, Path,)),
    responses(
        (status = 200, body = DeletedMessageBatch),
        (status = 400, description = "It has not ended", body = super::envelope::MessagesErrorBody),
        (status = 404, body = super::envelope::MessagesErrorBody)
    )
)]
pub(in crate::api) async fn delete_message_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Json<DeletedMessageBatch>, ApiError> {
    let batch = find(&app, &owner, &id).await?;
    if !batch.status.is_terminal() {
        let message = format!("The message batch '{id}' is still processing. Cancel it, or wait until it has ended.");
        return Err(ApiError::invalid(message));
    }
    // Two deletions at once: both find it, one deletes it, and for both it is gone.
    app.storage.delete_message_batch(&owner, batch.id, app.clock.now()).await?;
    Ok(Json(DeletedMessageBatch { id, object: "message_batch_deleted" }))
}

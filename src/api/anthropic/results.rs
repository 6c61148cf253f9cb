//! `GET /v1/messages/batches/{message_batch_id}/results`: a line for each request of a batch that has ended.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, TryStreamExt as _};

use super::find;
use super::result_lines::LineRewriter;
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, AppState};
use crate::storage::result_files::{ResultFile, ResultSource};
use crate::telemetry::chain;

/// Downloads the results of a message batch that has ended, in no particular order.
#[utoipa::path(get, path = "/v1/messages/batches/{message_batch_id}/results", tag = "message batches",
    params(("message_batch_id" = String, Path,)),
    responses(
        (status = 200, description = "A line of JSON for each request", content_type = "application/x-jsonl"),
        (status = 400, description = "It has not ended", body = super::envelope::MessagesErrorBody),
        (status = 404, body = super::envelope::MessagesErrorBody)
    )
)]
pub(in crate::api) async fn list_message_batch_results(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let batch = find(&app, &owner, &id).await?;
    if !batch.status.is_terminal() {
        let message = format!("The message batch '{id}' has no results yet: it is still processing.");
        return Err(ApiError::invalid(message));
    }
    let (storage, blobs, clock) = (app.storage.clone(), app.blobs.clone(), app.clock.clone());
    let source = ResultSource { storage, blobs, clock, owner, batch: batch.id };
    let files = source.files().await?;
    if files.file(ResultFile::Output).is_empty() && files.file(ResultFile::Errors).is_empty() && batch.counts.total > 0
    {
        return Err(ApiError::not_found(format!("The results of the message batch '{id}' have expired.")));
    }
    let whole = |file: ResultFile| files.stream(file, 0..files.file(file).len());
    let bytes = whole(ResultFile::Output).chain(whole(ResultFile::Errors)).map_err(axum::Error::new);
    let mut rewriter = LineRewriter::new();
    let lines = bytes.and_then(move |chunk| {
        let lines = rewriter.rewritten(&chunk).map_err(axum::Error::new);
        std::future::ready(lines)
    });
    // The client sees that the body is too short.
    let lines = lines.inspect_err(move |error| {
        tracing::error!(batch_id = %batch.id, error = chain(error), "results broke off");
    });
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-jsonl"));
    Ok(response)
}

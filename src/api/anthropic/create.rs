//! `POST /v1/messages/batches`: the requests are read one by one as they come, and kept as a batch input file.

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::HeaderMap;
use futures::{TryStreamExt as _, stream};
use serde_json::Value;

use super::origin::PublicOrigin;
use super::printed;
use super::requests::RequestLines;
use super::wire::MessageBatchObject;
use crate::actions::{BatchOfRowsError, CreateFileError};
use crate::api::caller::Caller;
use crate::api::content_coding::decoded_within;
use crate::api::request_key::{key_in, key_reused, made_before, object_gone, request_key};
use crate::api::router::JSON_BODY_BYTES;
use crate::api::storage_room::StorageRoom;
use crate::api::{ApiError, App, AppState};
use crate::domain::batch::{Batch, NewBatch, Window};
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::request_key::{BytesHash, RequestKey};
use crate::intake::{IntakeError, UploadRefusal, take_in};

/// The name of the input file.
const FILENAME: &str = "message-batch.jsonl";

/// The window that Anthropic's batches have.
const WINDOW: &str = "24h";

/// Creates a message batch.
#[utoipa::path(post, path = "/v1/messages/batches", tag = "message batches",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")),
    request_body(content = inline(MessageBatchBody)),
    responses(
        (status = 200, body = MessageBatchObject),
        (status = 400, body = super::envelope::MessagesErrorBody),
        (status = 409, description = "The key was used for another request",
            body = super::envelope::MessagesErrorBody),
        (status = 413, body = super::envelope::MessagesErrorBody),
        (status = 429, description = "The project has no room for it", body = super::envelope::MessagesErrorBody)
    )
)]
pub(in crate::api) async fn create_message_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    origin: PublicOrigin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<MessageBatchObject>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let _slot = app.uploads.begin(&owner)?;
    let room = StorageRoom::for_request(&app, &owner, &headers).await?;
    // Reading a byte would tell a client that waits for `100 Continue` to send it all.
    room.check(body.size_hint().lower().saturating_sub(JSON_BODY_BYTES as u64))?;
    let intake = room.within(&app.intake);
    let mut hash = key_in(&headers)?.map(|_| BytesHash::default());
    let most = app.intake.max_file_bytes + JSON_BODY_BYTES as u64;
    let body = decoded_within(&headers, body, most)?.inspect_ok(|chunk| {
        if let Some(hash) = &mut hash {
            hash.add(chunk);
        }
    });
    let requests = RequestLines::new(body, app.intake.max_line_bytes);
    let lines = stream::unfold(requests, async |mut requests| {
        let line = requests.next().await?;
        Some((line, requests))
    });
    let taken = take_in(Box::pin(lines), &app.blobs, &intake, true).await.map_err(|error| match error {
        IntakeError::Stream(error) => error,
        IntakeError::TooLarge => {
            let most = app.intake.max_file_bytes;
            let message = format!("The requests are larger than the {most} bytes they may have together.");
            room.too_large(&app.intake, ApiError::request_too_large(message))
        }
        IntakeError::Blob(error) => error.into(),
    })?;
    let hash = hash.map(BytesHash::finish).unwrap_or_default();
    let key = request_key(&headers, "POST /v1/messages/batches", &[hash.as_bytes()])?;
    let new = new_batch(window(&app)?);
    match app.batch_of_rows(&owner).create(taken, FILENAME, new, key.clone(), app.clock.now()).await {
        Ok((batch, rows)) => Ok(Json(MessageBatchObject::of(&batch, rows, &origin))),
        Err(error) => {
            // A repetition returns the batch of the first request, whose rows may be those that leave no room.
            let before = batch_before(&app, &owner, key.as_ref()).await?.ok_or_else(|| refusal(error, &owner))?;
            Ok(Json(MessageBatchObject::read(&app, before, &origin).await?))
        }
    }
}

/// The message batch that an earlier request with the same key has made.
async fn batch_before(app: &App, owner: &Owner, key: Option<&RequestKey>) -> Result<Option<Batch>, ApiError> {
    let Some(id) = made_before(app, owner, key).await?.as_deref().and_then(BatchId::parse) else { return Ok(None) };
    let batch = app.storage.message_batch(owner, id).await?;
    batch.map(Some).ok_or_else(|| object_gone(&printed(id)))
}

/// The body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, whose requests are read as they come")]
struct MessageBatchBody {
    #[schema(inline)]
    requests: Vec<MessageBatchRequest>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct MessageBatchRequest {
    /// 1 to 64 letters, digits, `_` and `-`; unique in the batch.
    custom_id: String,
    /// The body of a call of `/v1/messages`.
    params: std::collections::BTreeMap<String, Value>,
}

/// The window of a message batch: a day, or else the longest that clients may choose.
fn window(app: &App) -> Result<Window, ApiError> {
    let day = app.windows.iter().find(|window| window.text == WINDOW);
    let longest = || app.windows.iter().max_by_key(|window| window.length);
    day.or_else(longest).cloned().ok_or_else(ApiError::internal)
}

/// A batch whose input file is made with it.
fn new_batch(window: Window) -> NewBatch {
    NewBatch {
        input_file_id: String::new(),
        endpoint: Endpoint::Messages.into(),
        window,
        metadata: None,
        output_expires_after: None,
        idempotency_key: None,
        canary: None,
        retry: None,
        webhook: None,
        is_message_batch: true,
    }
}

fn refusal(error: BatchOfRowsError, project: &Owner) -> ApiError {
    match error {
        BatchOfRowsError::Refused(UploadRefusal::Empty) => {
            ApiError::invalid("requests: List should have at least 1 item")
        }
        BatchOfRowsError::Refused(refusal) => CreateFileError::Refused(refusal).into(),
        BatchOfRowsError::Rows(error, _) => {
            // Lines are counted from 1, and requests from 0.
            let place = error.line.map(|line| format!("requests.{}", line.saturating_sub(1)));
            let param = error.param.as_deref().map(|param| param.replacen("body", "params", 1));
            let path: Vec<String> = place.into_iter().chain(param).collect();
            let path = if path.is_empty() { "requests".to_owned() } else { path.join(".") };
            ApiError::invalid(format!("{path}: {}", error.message))
        }
        BatchOfRowsError::BeyondLimit(exceeded) => ApiError::beyond_limit(&exceeded, project),
        BatchOfRowsError::KeyUsed => key_reused(),
        BatchOfRowsError::Blob(error) => error.into(),
        BatchOfRowsError::Storage(error) => error.into(),
    }
}

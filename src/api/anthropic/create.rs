//! `POST /v1/messages/batches`: the requests are read one by one as they come, and kept as a batch input file.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use futures::{TryStreamExt as _, stream};
use serde_json::Value;

use super::origin::PublicOrigin;
use super::printed;
use super::requests::RequestLines;
use super::wire::MessageBatchObject;
use crate::actions::{CreateFileError, CreateMessageBatchError, MessageBatchCreator};
use crate::api::caller::Caller;
use crate::api::content_coding::decoded;
use crate::api::request_key::{key_in, key_reused, made_before, object_gone, request_key};
use crate::api::{ApiError, App, AppState};
use crate::domain::batch::{Batch, Window};
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::request_key::{BytesHash, RequestKey};
use crate::intake::{IntakeError, take_in};

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
        (status = 413, body = super::envelope::MessagesErrorBody)
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
    let Ok(_permit) = app.uploads.try_acquire() else { return Err(ApiError::too_many_uploads()) };
    let mut hash = key_in(&headers)?.map(|_| BytesHash::default());
    let body = decoded(&headers, body)?.inspect_ok(|chunk| {
        if let Some(hash) = &mut hash {
            hash.add(chunk);
        }
    });
    let requests = RequestLines::new(body, app.intake.max_line_bytes);
    let lines = stream::unfold(requests, async |mut requests| {
        let line = requests.next().await?;
        Some((line, requests))
    });
    let taken = take_in(Box::pin(lines), &app.blobs, &app.intake, true).await.map_err(|error| match error {
        IntakeError::Stream(error) => error,
        IntakeError::TooLarge => ApiError::request_too_large(format!(
            "The requests are larger than the {} bytes they may have together.",
            app.intake.max_file_bytes
        )),
        IntakeError::Blob(error) => error.into(),
    })?;
    let hash = hash.map(BytesHash::finish).unwrap_or_default();
    let key = request_key(&headers, "POST /v1/messages/batches", &[hash.as_bytes()])?;
    let App { storage, blobs, wakeup, batch_limits: limits, .. } = &*app;
    let creator = MessageBatchCreator { storage: &**storage, blobs, wakeup, owner: &owner, limits };
    match creator.create(taken, window(&app)?, key.clone(), app.clock.now()).await {
        Err(CreateMessageBatchError::File(CreateFileError::KeyUsed)) => {
            let before = batch_before(&app, &owner, key.as_ref()).await?;
            Ok(Json(MessageBatchObject::read(&app, before, &origin).await?))
        }
        created => created.map(|(batch, rows)| Json(MessageBatchObject::of(&batch, rows, &origin))).map_err(Into::into),
    }
}

/// The message batch that an earlier request with the same key has made.
async fn batch_before(app: &App, owner: &Owner, key: Option<&RequestKey>) -> Result<Batch, ApiError> {
    let id = made_before(app, owner, key).await?.as_deref().and_then(BatchId::parse).ok_or_else(key_reused)?;
    app.storage.message_batch(owner, id).await?.ok_or_else(|| object_gone(&printed(id)))
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

impl From<CreateMessageBatchError> for ApiError {
    fn from(error: CreateMessageBatchError) -> Self {
        match error {
            CreateMessageBatchError::Empty => Self::invalid("requests: List should have at least 1 item"),
            CreateMessageBatchError::Invalid(error) => {
                // Lines are counted from 1, and requests from 0.
                let place = error.line.map(|line| format!("requests.{}", line.saturating_sub(1)));
                let param = error.param.as_deref().map(|param| param.replacen("body", "params", 1));
                let path: Vec<String> = place.into_iter().chain(param).collect();
                let path = if path.is_empty() { "requests".to_owned() } else { path.join(".") };
                Self::invalid(format!("{path}: {}", error.message))
            }
            CreateMessageBatchError::File(error) => error.into(),
            CreateMessageBatchError::Storage(error) => error.into(),
            CreateMessageBatchError::Blob(error) => error.into(),
        }
    }
}

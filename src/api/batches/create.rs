//! `POST /v1/batches` (contract §8.1).
//!
//! The order of the checks is the contract's: missing, type, value, id prefix. The daemon checks later whether the file
//! exists.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use super::BatchObject;
use super::body::BatchBody;
use super::metadata::{canary, metadata};
use super::request_body::{self, BatchRequestBody};
use super::webhook::webhook;
use super::{of_rows, retry};
use crate::actions::{self, CreateBatchError};
use crate::api::access::ObjectId;
use crate::api::caller::Caller;
use crate::api::json_body::{self, kept_for, required, text};
use crate::api::request_key::{key_in, key_reused};
use crate::api::{ApiError, App, AppState};
use crate::domain::batch::{Batch, BatchRetry, NewBatch};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::endpoint::{Endpoint, Endpoints};
use crate::domain::owner::Owner;
use crate::domain::row::shown;
use crate::telemetry::chain;

/// Creates a batch. A second request with the same `Idempotency-Key` header returns the batch of the first.
#[utoipa::path(post, path = "/v1/batches", tag = "batches",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")),
    request_body(content = inline(BatchBody)),
    responses((status = 200, body = BatchObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 409, description = "The key was used for another request", body = crate::api::error::ErrorBody),
        (status = 429, description = "The project has no room for the `requests`", body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn create_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(Extension<ObjectId>, Json<BatchObject>), ApiError> {
    let request = request_body::read(&app, &owner, &headers, body).await?;
    let created = create(&app, &owner, &headers, &request).await;
    if let Some(rows) = request.rows {
        // They are in the input file now, or not wanted. What stays is swept like any orphan.
        if let Err(error) = app.blobs.delete(rows.part.blob).await {
            tracing::warn!(blob_id = %rows.part.blob, error = chain(&error), "a blob is left behind");
        }
    }
    let batch = created?;
    Ok((Extension(ObjectId(batch.id.to_string())), Json(batch.into())))
}

async fn create(
    app: &App,
    owner: &Owner,
    headers: &HeaderMap,
    request: &BatchRequestBody<'_>,
) -> Result<Batch, ApiError> {
    let mut parsed = json_body::parse(&request.text)?;
    if parsed.get("requests").is_some_and(|requests| !requests.is_null()) {
        return of_rows::create(app, owner, headers, &parsed, request).await;
    }
    let retried = retry::retried(app, owner, &mut parsed, &request.text).await?;
    let metadata = || metadata(&parsed, &request.text);
    let mut new = read(app, &parsed, metadata, key_in(headers)?, true)?;
    match retried {
        None => Ok(actions::create_batch(&*app.storage, &app.wakeup, owner, &new, app.clock.now()).await?),
        Some((old, options)) => {
            new.retry = Some(BatchRetry { of: old.id, options });
            retry::create(app, owner, &old, new).await
        }
    }
}

/// Reads the parameters. Without a file, the id of the input file is left empty.
pub(super) fn read(
    app: &App,
    body: &Map<String, Value>,
    metadata: impl FnOnce() -> Result<Option<String>, ApiError>,
    idempotency_key: Option<String>,
    has_file: bool,
) -> Result<NewBatch, ApiError> {
    for param in ["input_file_id", "endpoint", "completion_window"] {
        if has_file || param != "input_file_id" {
            required(body, param, param)?;
        }
    }
    let input_file_id = if has_file { text(body, "input_file_id", "input_file_id")? } else { "" };
    let endpoint = text(body, "endpoint", "endpoint")?;
    let completion_window = text(body, "completion_window", "completion_window")?;
    let endpoint = batch_endpoint(endpoint, &app.intake.endpoints)?;
    let window = app.windows.iter().find(|window| window.text == completion_window).ok_or_else(|| {
        let windows: Vec<&str> = app.windows.iter().map(|window| window.text.as_str()).collect();
        ApiError::wrong_value("completion_window", completion_window, &windows)
    })?;
    if has_file && !input_file_id.starts_with("file") {
        let shown = shown(input_file_id);
        let message = format!("Invalid 'input_file_id': '{shown}'. Expected an ID that begins with 'file'.");
        return Err(ApiError::invalid(message).at("input_file_id").code("invalid_value"));
    }
    if input_file_id.len() > 255 || input_file_id.contains('\0') {
        let message = "Invalid 'input_file_id': no file has such an ID.";
        return Err(ApiError::invalid(message).at("input_file_id").code("invalid_value"));
    }
    Ok(NewBatch {
        input_file_id: input_file_id.to_owned(),
        endpoint,
        window: window.clone(),
        metadata: metadata()?,
        output_expires_after: kept_for(body, "output_expires_after")?,
        idempotency_key,
        canary: canary(body)?,
        retry: None,
        webhook: webhook(body, app.webhook_reach)?,
        is_message_batch: false,
    })
}

/// The endpoint that a client means. The batch object has its usual name, whatever alias was given: then the url of
/// every row, and another request with the same `Idempotency-Key`, can be compared with it.
fn batch_endpoint(given: &str, endpoints: &Endpoints) -> Result<BatchEndpoint, ApiError> {
    if given == BatchEndpoint::ANY {
        return Ok(BatchEndpoint::Any);
    }
    let supported = || endpoints.all().map(Endpoint::as_str).collect::<Vec<_>>();
    let found = endpoints.find(given).map(BatchEndpoint::One);
    found.ok_or_else(|| ApiError::wrong_value("endpoint", given, &supported()))
}

impl From<CreateBatchError> for ApiError {
    fn from(error: CreateBatchError) -> Self {
        match error {
            CreateBatchError::WrongPurpose(_) => Self::invalid(error.to_string()).at("input_file_id"),
            CreateBatchError::KeyReused => key_reused(),
            CreateBatchError::Storage(error) => error.into(),
        }
    }
}

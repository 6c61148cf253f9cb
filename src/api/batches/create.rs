//! `POST /v1/batches` (contract §8.1).
//!
//! The order of the checks is the contract's: missing, type, value, id prefix. The daemon checks later whether the file
//! exists.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use super::BatchObject;
use super::metadata::{canary, metadata};
use super::retry;
use super::webhook::webhook;
use crate::actions::{self, CreateBatchError};
use crate::api::access::ObjectId;
use crate::api::caller::Caller;
use crate::api::extract::WholeBody;
use crate::api::{ApiError, App, AppState, expires_after, integer};
use crate::domain::batch::{BatchRetry, NewBatch};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::endpoint::{Endpoint, Endpoints};
use crate::domain::row::{shown, type_name};
use crate::net::IDEMPOTENCY_KEY;

const MAX_IDEMPOTENCY_KEY: usize = 255;

/// Creates a batch. A second request with the same `Idempotency-Key` header returns the batch of the first.
#[utoipa::path(post, path = "/v1/batches", tag = "batches",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")),
    request_body(content = inline(BatchBody)),
    responses((status = 200, body = BatchObject), (status = 400, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn create_batch(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Result<(Extension<ObjectId>, Json<BatchObject>), ApiError> {
    let parsed: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid(format!("We could not parse the JSON body of your request. {error}.")))?;
    let Value::Object(mut parsed) = parsed else {
        return Err(ApiError::invalid(format!(
            "We could not parse the JSON body of your request. Expected an object, but got {} instead.",
            type_name(&parsed)
        )));
    };
    let retried = retry::retried(&app, &owner, &mut parsed, &body).await?;
    let metadata = || metadata(&parsed, &body);
    let mut new = read(&app, &parsed, metadata, idempotency_key(&headers)?)?;
    let batch = match retried {
        None => actions::create_batch(&*app.storage, &app.wakeup, &owner, &new, app.clock.now()).await?,
        Some((old, options)) => {
            new.retry = Some(BatchRetry { of: old.id, options });
            retry::create(&app, &owner, &old, new).await?
        }
    };
    Ok((Extension(ObjectId(batch.id.to_string())), Json(batch.into())))
}

/// The body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body; it is read by hand, for OpenAI's messages")]
struct BatchBody {
    /// A file with purpose `batch`. This and the next two follow from the other batch if `retry_of` is given.
    input_file_id: Option<String>,
    /// The endpoint that every row names as its url. `*`: each row may name another (an extension).
    endpoint: Option<String>,
    /// One of the windows the server is configured with, such as `24h`.
    completion_window: Option<String>,
    /// Up to 16 pairs of texts; keys up to 64 characters, values up to 512. `canary`: how many rows run first, such as
    /// `100` or `100:auto`. `retry_of`: the same as the member.
    metadata: Option<std::collections::BTreeMap<String, String>>,
    /// How long the output and error files are kept.
    #[schema(inline)]
    output_expires_after: Option<OutputExpiresAfter>,
    /// A batch that has ended, whose rows that failed or never ran this batch runs again (an extension).
    retry_of: Option<String>,
    /// Which of these rows, and with which changes.
    #[schema(inline)]
    retry: Option<RetryBody>,
    /// Who is told how the batch ends, beside the webhooks of the server (an extension).
    #[schema(inline)]
    webhook: Option<WebhookBody>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct WebhookBody {
    /// Where the event is posted: `https` and a public address, unless the server allows others.
    url: String,
    /// What signs the event: `whsec_` and base64, or any other text. It is not shown again.
    secret: String,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct RetryBody {
    /// Only rows that failed with one of these codes.
    codes: Option<Vec<String>>,
    /// Members that replace those of the body of each row, such as `model`. One that is null is removed.
    body: Option<std::collections::BTreeMap<String, Value>>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct OutputExpiresAfter {
    /// Only `created_at`: that of the files.
    anchor: String,
    /// 3600 to 2592000.
    seconds: u32,
}

fn read(
    app: &App,
    body: &Map<String, Value>,
    metadata: impl FnOnce() -> Result<Option<String>, ApiError>,
    idempotency_key: Option<String>,
) -> Result<NewBatch, ApiError> {
    for param in ["input_file_id", "endpoint", "completion_window"] {
        match body.get(param) {
            None | Some(Value::Null) => return Err(ApiError::missing(param)),
            Some(_) => {}
        }
    }
    let input_file_id = text(body, "input_file_id", "input_file_id")?;
    let endpoint = text(body, "endpoint", "endpoint")?;
    let completion_window = text(body, "completion_window", "completion_window")?;
    let endpoint = batch_endpoint(endpoint, &app.intake.endpoints)?;
    let window = app.windows.iter().find(|window| window.text == completion_window).ok_or_else(|| {
        let windows: Vec<&str> = app.windows.iter().map(|window| window.text.as_str()).collect();
        ApiError::wrong_value("completion_window", completion_window, &windows)
    })?;
    if !input_file_id.starts_with("file") {
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
        output_expires_after: output_expires_after(body)?,
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

/// A text member, whose path is `path`.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str, path: &str) -> Result<&'a str, ApiError> {
    match object.get(name) {
        None | Some(Value::Null) => Err(ApiError::missing(path)),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(ApiError::wrong_type(path, "a string", type_name(other))),
    }
}

/// An object member; null counts as absent (contract §1.4).
pub(super) fn object<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(ApiError::wrong_type(name, "an object", type_name(other))),
    }
}

fn output_expires_after(body: &Map<String, Value>) -> Result<Option<Duration>, ApiError> {
    let Some(given) = object(body, "output_expires_after")? else { return Ok(None) };
    let anchor = text(given, "anchor", "output_expires_after.anchor")?;
    let seconds = |param: &str| match given.get("seconds") {
        None | Some(Value::Null) => Err(ApiError::missing(param)),
        Some(value) => integer::in_json(param, value, expires_after::SECONDS),
    };
    expires_after::read("output_expires_after", anchor, seconds).map(Some)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get(&IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_IDEMPOTENCY_KEY);
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        ApiError::invalid(format!("The Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters."))
    })
}

impl From<CreateBatchError> for ApiError {
    fn from(error: CreateBatchError) -> Self {
        match error {
            CreateBatchError::WrongPurpose(_) => Self::invalid(error.to_string()).at("input_file_id"),
            CreateBatchError::KeyReused => Self::invalid(error.to_string()).code("idempotency_key_reused"),
            CreateBatchError::Storage(error) => error.into(),
        }
    }
}

//! `POST /v1/uploads/{upload_id}/complete` (contract §5.3).

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::{UploadObject, find};
use crate::actions::{CompleteUploadError, UploadCompleter, UploadCompletion};
use crate::api::caller::Caller;
use crate::api::extract::{Id, WholeBody};
use crate::api::json_body::{self, required};
use crate::api::request_key::{made_before, request_key};
use crate::api::storage_room::StorageRoom;
use crate::api::{ApiError, AppState};
use crate::domain::request_key::RequestKey;
use crate::domain::row::type_name;
use crate::domain::upload::UploadStatus;

/// Makes a file of the parts, in the order of `part_ids`. A second request returns the same object.
#[utoipa::path(post, path = "/v1/uploads/{upload_id}/complete", tag = "uploads",
    params(
        ("upload_id" = String, Path,),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")
    ),
    request_body(content = inline(CompletionBody)),
    responses((status = 200, body = UploadObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 404, body = crate::api::error::ErrorBody),
        (status = 409, description = "The key was used for another request", body = crate::api::error::ErrorBody),
        (status = 503, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn complete_upload(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Result<Json<UploadObject>, ApiError> {
    // A batch input file is read whole, as when it is uploaded at once.
    let _slot = app.uploads.begin(&owner)?;
    let parsed = json_body::parse(&body)?;
    let asked = json_body::canonical(&parsed);
    let pieces = [id.as_bytes(), asked.as_bytes()];
    let key = request_key(&headers, "POST /v1/uploads/{upload_id}/complete", &pieces)?;
    let completion = read(&parsed, key)?;
    // A repetition returns the same object anyway.
    made_before(&app, &owner, completion.key.as_ref()).await?;
    let upload = find(&app, &owner, &id).await?;
    // Its parts are counted already, so that only a file that is unpacked needs more room.
    let room = StorageRoom::for_request(&app, &owner, &headers).await?;
    let intake = room.within(&app.intake);
    let completer = UploadCompleter { storage: &*app.storage, blobs: &app.blobs, intake: &intake, owner: &owner };
    match completer.complete(upload, &completion, app.clock.now()).await {
        Err(error @ CompleteUploadError::TooLarge) => Err(room.too_large(&app.intake, error.into())),
        completed => Ok(Json(completed?.into())),
    }
}

/// The body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body; it is read by hand, for OpenAI's messages")]
struct CompletionBody {
    /// The ids of the parts in the order of their bytes. Parts that are not named are dropped.
    part_ids: Vec<String>,
    /// The MD5 of all bytes, in hexadecimal digits.
    md5: Option<String>,
}

fn read(body: &Map<String, Value>, key: Option<RequestKey>) -> Result<UploadCompletion, ApiError> {
    let ids = match required(body, "part_ids", "part_ids")? {
        Value::Array(ids) => ids,
        other => return Err(ApiError::wrong_type("part_ids", "an array of strings", type_name(other))),
    };
    let id = |(no, id): (usize, &Value)| {
        let text = id.as_str().map(str::to_owned);
        text.ok_or_else(|| ApiError::wrong_type(&format!("part_ids[{no}]"), "a string", type_name(id)))
    };
    let part_ids = ids.iter().enumerate().map(id).collect::<Result<_, _>>()?;
    let md5 = match body.get("md5") {
        None | Some(Value::Null) => None,
        Some(Value::String(md5)) => Some(md5.clone()),
        Some(other) => return Err(ApiError::wrong_type("md5", "a string", type_name(other))),
    };
    Ok(UploadCompletion { part_ids, md5, key })
}

impl From<CompleteUploadError> for ApiError {
    fn from(error: CompleteUploadError) -> Self {
        let message = error.to_string();
        match error {
            // Another request has used the key in this moment.
            CompleteUploadError::NotPending(UploadStatus::Pending) => Self::unavailable(),
            CompleteUploadError::NotPending(_) | CompleteUploadError::Packed(_) | CompleteUploadError::TooLarge => {
                Self::invalid(message)
            }
            CompleteUploadError::UnknownPart(_)
            | CompleteUploadError::RepeatedPart(_)
            | CompleteUploadError::WrongTotal { .. } => Self::invalid(message).at("part_ids"),
            CompleteUploadError::WrongMd5(_) => Self::invalid(message).at("md5"),
            CompleteUploadError::File(error) => error.into(),
        }
    }
}

//! `POST /v1/uploads/{upload_id}/parts` (contract §5.2): a multipart form with the bytes of a part.

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::HeaderMap;
use futures::TryStreamExt as _;

use super::{UploadPartObject, check_is_pending, find};
use crate::api::caller::Caller;
use crate::api::content_coding::decoded;
use crate::api::extract::Id;
use crate::api::form::{Form, FormPart, FormShape, malformed};
use crate::api::request_key::{key_in, made_before, object_gone, request_key};
use crate::api::storage_room::StorageRoom;
use crate::api::{ApiError, App, AppState};
use crate::domain::file::FilePart;
use crate::domain::ids::UploadPartId;
use crate::domain::report::IntakeLimits;
use crate::domain::request_key::BytesHash;
use crate::domain::upload::{MAX_PART_BYTES, MAX_PARTS, UploadPart};
use crate::intake::{IntakeError, take_in};
use crate::storage::blobs::Blobs;

/// Adds a part to an upload. Parts may be sent side by side: their order is decided when the upload is completed.
#[utoipa::path(post, path = "/v1/uploads/{upload_id}/parts", tag = "uploads",
    params(
        ("upload_id" = String, Path,),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")
    ),
    request_body(content = inline(PartForm), content_type = "multipart/form-data"),
    responses((status = 200, body = UploadPartObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 404, body = crate::api::error::ErrorBody),
        (status = 409, description = "The key was used for another request", body = crate::api::error::ErrorBody),
        (status = 503, body = crate::api::error::ErrorBody),
        (status = 507, description = "The disk is full", body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn add_upload_part(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UploadPartObject>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let _slot = app.uploads.begin(&owner)?;
    let upload = find(&app, &owner, &id).await?;
    check_is_pending(&upload, NO_PART)?;
    let mut hash = key_in(&headers)?.map(|_| BytesHash::default());
    let room = StorageRoom::for_request(&app, &owner, &headers).await?;
    room.check(0)?;
    let taken = take_part(&app, room, &headers, body, &mut hash).await?;
    let hash = hash.map(BytesHash::finish).unwrap_or_default();
    let key = request_key(&headers, "POST /v1/uploads/{upload_id}/parts", &[id.as_bytes(), hash.as_bytes()])?;
    let part = UploadPart { id: UploadPartId::new(), upload: upload.id, part: taken, created_at: app.clock.now() };
    // After a storage error the part may be there after all; a blob that is in no part is swept like any orphan.
    if app.storage.add_upload_part(&owner, &part, key.as_ref()).await? {
        return Ok(Json(part.into()));
    }
    app.blobs.delete(taken.blob).await?;
    if let Some(before) = made_before(&app, &owner, key.as_ref()).await? {
        let parts = app.storage.upload_parts(&owner, upload.id).await?;
        let part = parts.into_iter().find(|part| part.id.to_string() == before);
        return Ok(Json(part.ok_or_else(|| object_gone(&before))?.into()));
    }
    let upload = find(&app, &owner, &id).await?;
    check_is_pending(&upload, NO_PART)?;
    Err(ApiError::invalid(format!("{NO_PART}: it has {MAX_PARTS} already.")))
}

const NO_PART: &str = "No part can be added to the upload";

/// The form, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form; the parts are read as they come")]
struct PartForm {
    /// The bytes, at most 64 MiB.
    #[schema(value_type = String, format = Binary)]
    data: Vec<u8>,
}

/// Stores the part `data` of the form. Nothing is left of a form that is refused.
async fn take_part(
    app: &App,
    room: StorageRoom,
    headers: &HeaderMap,
    body: Body,
    hash: &mut Option<BytesHash>,
) -> Result<FilePart, ApiError> {
    let announced = body.size_hint().lower();
    let mut bytes = decoded(headers, body)?;
    let largest = IntakeLimits { max_file_bytes: MAX_PART_BYTES, ..app.intake.clone() };
    let (limits, too_large) = (room.within(&largest), room.too_large(&largest, part_too_large()));
    let shape = FormShape {
        required: "the part 'data'",
        known: "'data'",
        payload: "data",
        max_bytes: limits.max_file_bytes,
        too_large: too_large.clone(),
    };
    let mut form = Form::new(&mut bytes, headers, announced, shape)?;
    let mut taken = None;
    let store = PartStore { blobs: &app.blobs, limits, too_large };
    let read = read(&store, &mut form, &mut taken, hash).await;
    match (read, taken) {
        (Ok(()), Some(taken)) => Ok(taken),
        (Ok(()), None) => Err(ApiError::missing("data")),
        (Err(error), taken) => {
            if let Some(taken) = taken {
                app.blobs.delete(taken.blob).await?;
            }
            Err(error)
        }
    }
}

/// Where parts are stored, and within which limits.
struct PartStore<'a> {
    blobs: &'a Blobs,
    limits: IntakeLimits,
    too_large: ApiError,
}

async fn read(
    store: &PartStore<'_>,
    form: &mut Form<'_>,
    taken: &mut Option<FilePart>,
    hash: &mut Option<BytesHash>,
) -> Result<(), ApiError> {
    while let Some(mut part) = form.next().await? {
        match part.name() {
            Some("data") if taken.is_some() => {
                return Err(ApiError::invalid("The form has two parts named 'data'.").at("data"));
            }
            Some("data") => *taken = Some(store.take(&mut part, hash).await?),
            _ => form.ignore(part).await?,
        }
    }
    Ok(())
}

impl PartStore<'_> {
    async fn take(&self, part: &mut FormPart<'_>, hash: &mut Option<BytesHash>) -> Result<FilePart, ApiError> {
        let chunks = part.chunks().inspect_ok(|chunk| {
            if let Some(hash) = hash {
                hash.add(chunk);
            }
        });
        let taken = take_in(chunks, self.blobs, &self.limits, false).await.map_err(|error| match error {
            IntakeError::Stream(error) => malformed(&error),
            IntakeError::Blob(error) => error.into(),
            IntakeError::TooLarge => self.too_large.clone(),
        })?;
        Ok(taken.part)
    }
}

fn part_too_large() -> ApiError {
    ApiError::invalid(format!("The part is too large: it may have {MAX_PART_BYTES} bytes (64 MiB).")).at("data")
}

//! `POST /v1/uploads` (contract §5.1).

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use super::{UploadObject, find};
use crate::api::access::ObjectId;
use crate::api::caller::Caller;
use crate::api::extract::WholeBody;
use crate::api::files::{check_name, file_too_large, purpose_of};
use crate::api::json_body::{self, kept_for, required, text};
use crate::api::request_key::{made_before, object_gone, request_key};
use crate::api::storage_room::StorageRoom;
use crate::api::{ApiError, App, AppState, integer};
use crate::domain::file::{Purpose, clean_filename};
use crate::domain::ids::UploadId;
use crate::domain::upload::{MAX_UPLOAD_BYTES, UPLOAD_LIFE, Upload, UploadStatus};

/// Begins a file that is sent in parts, within an hour. A second request with the same `Idempotency-Key` header returns
/// the upload of the first.
#[utoipa::path(post, path = "/v1/uploads", tag = "uploads",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")),
    request_body(content = inline(UploadBody)),
    responses((status = 200, body = UploadObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 409, description = "The key was used for another request", body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn create_upload(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    headers: HeaderMap,
    WholeBody(body): WholeBody,
) -> Result<(Extension<ObjectId>, Json<UploadObject>), ApiError> {
    let parsed = json_body::parse(&body)?;
    let upload = read(&app, &parsed)?;
    let key = request_key(&headers, "POST /v1/uploads", &[json_body::canonical(&parsed).as_bytes()])?;
    StorageRoom::for_request(&app, &owner, &headers).await?.check(upload.bytes)?;
    if !app.storage.create_upload(&owner, &upload, key.as_ref()).await? {
        let id = made_before(&app, &owner, key.as_ref()).await?.ok_or_else(ApiError::unavailable)?;
        return Ok(answered(find(&app, &owner, &id).await.map_err(|_| object_gone(&id))?));
    }
    tracing::info!(upload_id = %upload.id, purpose = %upload.purpose, bytes = upload.bytes, "upload created");
    Ok(answered(upload))
}

fn answered(upload: Upload) -> (Extension<ObjectId>, Json<UploadObject>) {
    (Extension(ObjectId(upload.id.to_string())), Json(upload.into()))
}

/// The body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body; it is read by hand, for OpenAI's messages")]
struct UploadBody {
    /// The name of the file.
    filename: String,
    /// What the file is for.
    #[schema(pattern = "^(batch|assistants|fine-tune|vision|user_data|evals)$")]
    purpose: String,
    /// The size of the file: at most 8 GiB, and for `batch` at most what the server takes as a file.
    bytes: u64,
    /// The type of the file, which makes no difference.
    mime_type: String,
    /// How long the file is kept.
    #[schema(inline)]
    expires_after: Option<UploadExpiresAfter>,
}

#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct UploadExpiresAfter {
    /// Only `created_at`.
    #[schema(pattern = "^created_at$")]
    anchor: String,
    /// How long, in seconds.
    #[schema(minimum = 3600, maximum = 2_592_000)]
    seconds: u32,
}

fn read(app: &App, body: &Map<String, Value>) -> Result<Upload, ApiError> {
    for param in ["filename", "purpose", "bytes", "mime_type"] {
        required(body, param, param)?;
    }
    let [filename, purpose, mime_type] =
        [text(body, "filename", "filename"), text(body, "purpose", "purpose"), text(body, "mime_type", "mime_type")];
    let (filename, purpose) = (clean_filename(filename?), purpose_of(purpose?)?);
    mime_type?;
    let most = i64::try_from(MAX_UPLOAD_BYTES).expect("8 GiB");
    let bytes = integer::in_json("bytes", required(body, "bytes", "bytes")?, 0..=most)?.unsigned_abs();
    check_name(purpose, &filename)?;
    // The rows of a larger file could not be run, and sending it would be in vain.
    if purpose == Purpose::Batch && bytes > app.intake.max_file_bytes {
        return Err(file_too_large().at("bytes"));
    }
    let now = app.clock.now();
    Ok(Upload {
        id: UploadId::new(),
        filename,
        purpose,
        bytes,
        created_at: now,
        expires_at: now.plus(UPLOAD_LIFE),
        status: UploadStatus::Pending,
        file_expires_after: kept_for(body, "expires_after")?,
        file: None,
    })
}

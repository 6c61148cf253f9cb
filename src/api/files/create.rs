//! `POST /v1/files` (contract §2): a multipart form whose parts come in any order.

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};

use super::upload_form::UploadForm;
use super::{FileObject, file_too_large, find};
use crate::actions::{self, CreateFileError};
use crate::api::access::ObjectId;
use crate::api::caller::Caller;
use crate::api::content_coding::decoded;
use crate::api::form::{Form, FormShape};
use crate::api::request_key::{key_in, key_reused, made_before, object_gone};
use crate::api::storage_room::StorageRoom;
use crate::api::{ApiError, App, AppState};
use crate::domain::file::File;
use crate::domain::owner::Owner;
use crate::domain::request_key::RequestKey;

/// Uploads a file. A batch input file may be compressed with gzip or zstd, and any body with a `Content-Encoding`; the
/// file is kept unpacked. A second request with the same `Idempotency-Key` header returns the file of the first.
#[utoipa::path(post, path = "/v1/files", tag = "files",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repetitions safe (an extension)")),
    request_body(content = inline(FileUpload), content_type = "multipart/form-data"),
    responses((status = 200, body = FileObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 409, description = "The key was used for another request", body = crate::api::error::ErrorBody),
        (status = 503, body = crate::api::error::ErrorBody),
        (status = 507, description = "The disk is full", body = crate::api::error::ErrorBody))
)]
pub(crate) async fn create_file(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<(Extension<ObjectId>, Json<FileObject>), ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let _slot = app.uploads.begin(&owner)?;
    let room = StorageRoom::for_request(&app, &owner, &headers).await?;
    room.check(0)?;
    let intake = room.within(&app.intake);
    let announced = body.size_hint().lower();
    let mut bytes = decoded(&headers, body)?;
    let too_large = room.too_large(&app.intake, file_too_large());
    let mut upload = UploadForm::new(key_in(&headers)?.is_some(), too_large.clone());
    let shape = FormShape {
        required: "the parts 'file' and 'purpose'",
        known: "'file', 'purpose' and 'expires_after[…]'",
        payload: "file",
        max_bytes: intake.max_file_bytes,
        too_large,
    };
    let read = match Form::new(&mut bytes, &headers, announced, shape) {
        Ok(form) => upload.read(&app.blobs, &intake, form).await,
        Err(error) => Err(error),
    };
    let checked = read.and_then(|()| upload.check(&headers));
    match (checked, upload.taken.take()) {
        (Ok(form), Some(taken)) => {
            let taken = upload.unpack(&app.blobs, &intake, &form, taken).await?;
            let key = form.key.clone();
            match actions::create_file(&*app.storage, &app.blobs, &owner, taken, form, app.clock.now()).await {
                Err(CreateFileError::KeyUsed) => Ok(answered(file_before(&app, &owner, key.as_ref()).await?)),
                created => Ok(answered(created?)),
            }
        }
        (checked, taken) => {
            if let Some(taken) = taken {
                app.blobs.delete(taken.part.blob).await?;
            }
            Err(checked.err().unwrap_or_else(|| ApiError::missing("file")))
        }
    }
}

fn answered(file: File) -> (Extension<ObjectId>, Json<FileObject>) {
    (Extension(ObjectId(file.id.to_string())), Json(file.into()))
}

/// The file that an earlier request with the same key has made.
async fn file_before(app: &App, owner: &Owner, key: Option<&RequestKey>) -> Result<File, ApiError> {
    // Another request can have used the key a day ago, and it can have been forgotten in this moment.
    let id = made_before(app, owner, key).await?.ok_or_else(ApiError::unavailable)?;
    find(app, owner, &id).await.map_err(|_| object_gone(&id))
}

/// The form, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form; the parts are read as they come")]
struct FileUpload {
    /// The bytes.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// What the file is for.
    #[schema(pattern = "^(batch|assistants|fine-tune|vision|user_data|evals)$")]
    purpose: String,
    /// Only `created_at`.
    #[schema(rename = "expires_after[anchor]", pattern = "^created_at$")]
    expires_after_anchor: Option<String>,
    /// 3600 to 2592000.
    #[schema(rename = "expires_after[seconds]", minimum = 3600, maximum = 2_592_000)]
    expires_after_seconds: Option<u32>,
}

impl From<CreateFileError> for ApiError {
    fn from(error: CreateFileError) -> Self {
        match error {
            CreateFileError::Refused(refusal) => Self::invalid(refusal.to_string()),
            CreateFileError::KeyUsed => key_reused(),
            CreateFileError::Blob(error) => error.into(),
            CreateFileError::Storage(error) => error.into(),
        }
    }
}

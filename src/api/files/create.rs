//! `POST /v1/files` (contract §2): a multipart form whose parts come in any order.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::HeaderMap;

use super::{FileObject, check_name, file_too_large, purpose_of};
use crate::actions::{self, CreateFileError, FileForm};
use crate::api::caller::Caller;
use crate::api::form::{Form, FormPart, FormShape, malformed};
use crate::api::{ApiError, App, AppState, expires_after, integer};
use crate::domain::file::{Purpose, clean_filename};
use crate::intake::{IntakeError, Taken, take_in};

/// Uploads a file.
#[utoipa::path(post, path = "/v1/files", tag = "files",
    request_body(content = inline(FileUpload), content_type = "multipart/form-data"),
    responses((status = 200, body = FileObject), (status = 400, body = crate::api::error::ErrorBody),
        (status = 503, body = crate::api::error::ErrorBody),
        (status = 507, description = "The disk is full", body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn create_file(
    State(app): AppState,
    Caller(owner): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FileObject>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let Ok(_permit) = app.uploads.try_acquire() else { return Err(ApiError::too_many_uploads()) };
    let announced = body.size_hint().lower();
    let mut bytes = body.into_data_stream();
    let mut upload = UploadForm::default();
    let shape = FormShape {
        required: "the parts 'file' and 'purpose'",
        known: "'file', 'purpose' and 'expires_after[…]'",
        payload: "file",
        max_bytes: app.intake.max_file_bytes,
        too_large: file_too_large,
    };
    let read = match Form::new(&mut bytes, &headers, announced, shape) {
        Ok(form) => upload.read(&app, form).await,
        Err(error) => Err(error),
    };
    let taken = upload.taken.take();
    let checked = read.and_then(|()| upload.check());
    match (checked, taken) {
        (Ok(form), Some(taken)) => {
            let file = actions::create_file(&*app.storage, &app.blobs, &owner, taken, form, app.clock.now()).await;
            Ok(Json(file.map_err(ApiError::from)?.into()))
        }
        (checked, taken) => {
            if let Some(taken) = taken {
                app.blobs.delete(taken.part.blob).await?;
            }
            Err(checked.err().unwrap_or_else(|| ApiError::missing("file")))
        }
    }
}

/// The form, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form; the parts are read as they come")]
struct FileUpload {
    /// The bytes.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// What the file is for: `batch`, `assistants`, `fine-tune`, `vision`, `user_data` or `evals`.
    purpose: String,
    /// Only `created_at`.
    #[schema(rename = "expires_after[anchor]")]
    expires_after_anchor: Option<String>,
    /// 3600 to 2592000.
    #[schema(rename = "expires_after[seconds]")]
    expires_after_seconds: Option<u32>,
}

/// The parts of a form that were read so far.
#[derive(Default)]
struct UploadForm {
    taken: Option<Taken>,
    filename: String,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl UploadForm {
    async fn read(&mut self, app: &App, mut form: Form<'_>) -> Result<(), ApiError> {
        while let Some(part) = form.next().await? {
            match part.name() {
                Some("file") if self.taken.is_some() => {
                    return Err(ApiError::invalid("The form has two parts named 'file'.").at("file"));
                }
                Some("file") => self.take(app, part).await?,
                // The purpose decides how the file is read, so the first one counts.
                Some("purpose") if self.purpose.is_none() => self.purpose = Some(part.text().await?),
                Some("expires_after[anchor]" | "expires_after.anchor") => self.anchor = Some(part.text().await?),
                Some("expires_after[seconds]" | "expires_after.seconds") => self.seconds = Some(part.text().await?),
                Some("expires_after") => {
                    let message = "Invalid 'expires_after': send it as the parts 'expires_after[anchor]' and \
                                   'expires_after[seconds]'.";
                    return Err(ApiError::invalid(message).at("expires_after"));
                }
                _ => form.ignore(part).await?,
            }
        }
        Ok(())
    }

    async fn take(&mut self, app: &App, mut part: FormPart<'_>) -> Result<(), ApiError> {
        self.filename = clean_filename(&part.filename());
        // The purpose may follow after the file, so an unknown purpose is treated as `batch`.
        let inspect = self.purpose.as_deref().is_none_or(|purpose| purpose == Purpose::Batch.as_str());
        match take_in(part.chunks(), &app.blobs, &app.intake, inspect).await {
            Ok(taken) => {
                self.taken = Some(taken);
                Ok(())
            }
            Err(IntakeError::Stream(error)) => Err(malformed(&error)),
            Err(IntakeError::Blob(error)) => Err(error.into()),
            Err(IntakeError::TooLarge) => Err(file_too_large()),
        }
    }

    fn check(&self) -> Result<FileForm, ApiError> {
        let purpose = self.purpose.as_deref().ok_or_else(|| ApiError::missing("purpose"))?;
        let purpose = purpose_of(purpose)?;
        check_name(purpose, &self.filename)?;
        Ok(FileForm { purpose, filename: self.filename.clone(), expires_after: self.expires_after()? })
    }

    fn expires_after(&self) -> Result<Option<Duration>, ApiError> {
        let (anchor, seconds) = match (&self.anchor, &self.seconds) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(ApiError::missing("expires_after.anchor")),
            (Some(_), None) => return Err(ApiError::missing("expires_after.seconds")),
            (Some(anchor), Some(seconds)) => (anchor, seconds),
        };
        let seconds = |param: &str| integer::in_text(param, seconds, expires_after::SECONDS);
        expires_after::read("expires_after", anchor, seconds).map(Some)
    }
}

impl From<CreateFileError> for ApiError {
    fn from(error: CreateFileError) -> Self {
        match error {
            CreateFileError::Refused(refusal) => Self::invalid(refusal.to_string()),
            CreateFileError::Blob(error) => error.into(),
            CreateFileError::Storage(error) => error.into(),
        }
    }
}

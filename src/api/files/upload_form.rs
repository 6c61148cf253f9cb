//! The form of an upload, which is stored while it is read.

use std::time::Duration;

use axum::http::HeaderMap;
use futures::TryStreamExt as _;

use super::{check_name, purpose_of};
use crate::actions::FileForm;
use crate::api::form::{Form, FormPart, malformed};
use crate::api::request_key::request_key;
use crate::api::{ApiError, expires_after, integer};
use crate::domain::file::{Purpose, clean_filename};
use crate::domain::report::IntakeLimits;
use crate::domain::request_key::BytesHash;
use crate::intake::{IntakeError, Packing, Taken, UnpackError, recognised, take_in, unpacked};
use crate::storage::blobs::{BlobError, Blobs, FileBytes};

/// The parts of a form that were read so far.
pub(super) struct UploadForm {
    /// The stored bytes.
    pub(super) taken: Option<Taken>,
    /// The format of bytes that were stored as they came, because the purpose was not known yet.
    packing: Option<Packing>,
    /// The hash of the bytes as they came, if the request has an idempotency key.
    hash: Option<BytesHash>,
    too_large: ApiError,
    filename: String,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl UploadForm {
    /// The form of a request that has an idempotency key, or none, and the refusal of a file that is too large.
    pub(super) fn new(has_key: bool, too_large: ApiError) -> Self {
        Self {
            taken: None,
            packing: None,
            hash: has_key.then(BytesHash::default),
            too_large,
            filename: String::new(),
            purpose: None,
            anchor: None,
            seconds: None,
        }
    }

    /// Reads all parts.
    pub(super) async fn read(
        &mut self,
        blobs: &Blobs,
        intake: &IntakeLimits,
        mut form: Form<'_>,
    ) -> Result<(), ApiError> {
        while let Some(part) = form.next().await? {
            match part.name() {
                Some("file") if self.taken.is_some() => {
                    return Err(ApiError::invalid("The form has two parts named 'file'.").at("file"));
                }
                Some("file") => self.take(blobs, intake, part).await?,
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

    async fn take(&mut self, blobs: &Blobs, intake: &IntakeLimits, mut part: FormPart<'_>) -> Result<(), ApiError> {
        self.filename = clean_filename(&part.filename());
        let hash = &mut self.hash;
        let chunks = part.chunks().inspect_ok(|chunk| {
            if let Some(hash) = hash {
                hash.add(chunk);
            }
        });
        let (packing, chunks) = recognised(chunks).await.map_err(|error| malformed(&error))?;
        // The purpose may follow after the file. An unknown purpose is treated as `batch`, but a packed file of another
        // purpose must stay as it is.
        let purpose = self.purpose.as_deref();
        let inspect = purpose.is_none_or(|purpose| purpose == Purpose::Batch.as_str());
        let unpacks = inspect && purpose.is_some();
        let bytes = unpacked(chunks, packing.filter(|_| unpacks));
        let taken = take_in(bytes, blobs, intake, inspect && (unpacks || packing.is_none())).await;
        self.taken = Some(taken.map_err(|error| refusal(error, &self.too_large, |error| malformed(&error)))?);
        self.packing = packing.filter(|_| !unpacks);
        Ok(())
    }

    /// Checks the form, which was read whole.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<FileForm, ApiError> {
        let purpose = self.purpose.as_deref().ok_or_else(|| ApiError::missing("purpose"))?;
        let purpose = purpose_of(purpose)?;
        check_name(purpose, &self.filename)?;
        let (filename, expires_after) = (self.filename.clone(), self.expires_after()?);
        let key = match self.hash.clone().map(BytesHash::finish) {
            None => None,
            Some(hash) => {
                let kept = format!("{expires_after:?}");
                let pieces = [purpose.as_str(), &filename, &kept, &hash].map(str::as_bytes);
                request_key(headers, "POST /v1/files", &pieces)?
            }
        };
        Ok(FileForm { purpose, filename, expires_after, key })
    }

    /// Unpacks a batch input file that was stored as it came.
    pub(super) async fn unpack(
        &self,
        blobs: &Blobs,
        intake: &IntakeLimits,
        form: &FileForm,
        taken: Taken,
    ) -> Result<Taken, ApiError> {
        if form.purpose != Purpose::Batch || self.packing.is_none() {
            return Ok(taken);
        }
        let packed = FileBytes::new(vec![taken.part]).stream(blobs, 0..taken.part.bytes);
        let bytes = unpacked(Box::pin(packed), self.packing);
        let unpacked = take_in(bytes, blobs, intake, true).await;
        blobs.delete(taken.part.blob).await?;
        unpacked.map_err(|error| refusal(error, &self.too_large, BlobError::into))
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

/// `broken`: the refusal of a stream that broke off.
fn refusal<E>(
    error: IntakeError<UnpackError<E>>,
    too_large: &ApiError,
    broken: impl FnOnce(E) -> ApiError,
) -> ApiError {
    match error {
        IntakeError::Stream(UnpackError::Stream(error)) => broken(error),
        IntakeError::Stream(UnpackError::Window) => ApiError::invalid(UnpackError::<E>::Window.to_string()),
        IntakeError::Stream(UnpackError::Damaged { packing }) => {
            ApiError::invalid(UnpackError::<E>::Damaged { packing }.to_string())
        }
        IntakeError::Blob(error) => error.into(),
        IntakeError::TooLarge => too_large.clone(),
    }
}

//! The body of `POST /v1/batches`, whose member `requests` (an extension) may be as large as a file: its rows are
//! spooled to the blob store while they come, wherever the member stands.

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::HeaderMap;
use futures::StreamExt as _;
use tokio::sync::SemaphorePermit;

use crate::api::content_coding::{decoded, unreadable};
use crate::api::router::JSON_BODY_BYTES;
use crate::api::{ApiError, App};
use crate::domain::file::FilePart;
use crate::domain::json_elements::{ElementScanner, ScanError};
use crate::domain::request_key::BytesHash;
use crate::storage::blobs::BlobWriter;

/// A body.
pub(super) struct BatchRequestBody<'a> {
    /// The body with an empty array as its `requests`.
    pub(super) text: Bytes,
    /// Its `requests`, if it has any.
    pub(super) rows: Option<SpooledRows<'a>>,
}

/// The elements of `requests`, one a line, in a blob that nothing refers to.
pub(super) struct SpooledRows<'a> {
    pub(super) part: FilePart,
    /// The hash of the lines.
    pub(super) hash: String,
    /// Rows are taken in like an upload.
    _permit: SemaphorePermit<'a>,
}

/// The blob that is being written.
struct Spool<'a> {
    writer: BlobWriter,
    hash: BytesHash,
    permit: SemaphorePermit<'a>,
}

/// Reads a body.
pub(super) async fn read<'a>(app: &'a App, headers: &HeaderMap, body: Body) -> Result<BatchRequestBody<'a>, ApiError> {
    let limit = app.intake.max_file_bytes;
    // Reading a byte would tell a client that waits for `100 Continue` to send it all.
    if body.size_hint().lower() > limit + JSON_BODY_BYTES as u64 {
        return Err(too_large(limit));
    }
    let mut chunks = decoded(headers, body)?;
    let mut scanner = ElementScanner::new("requests", JSON_BODY_BYTES, app.intake.max_line_bytes);
    let mut spool: Option<Spool<'a>> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| unreadable(&error))?;
        let mut lines = Vec::new();
        let scanned = scanner.push(&chunk, |element| {
            lines.extend_from_slice(element);
            lines.push(b'\n');
        });
        scanned.map_err(|error| refusal(&error))?;
        if !lines.is_empty() {
            let spool = match &mut spool {
                Some(spool) => spool,
                none => none.insert(begin(app).await?),
            };
            if spool.writer.written() + lines.len() as u64 > limit {
                return Err(too_large(limit));
            }
            spool.hash.add(&lines);
            spool.writer.write(lines.into()).await?;
        }
    }
    let rows = match spool {
        None => None,
        Some(spool) => Some(finish(spool).await?),
    };
    Ok(BatchRequestBody { text: scanner.finish().0.into(), rows })
}

async fn begin(app: &App) -> Result<Spool<'_>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let Ok(permit) = app.uploads.try_acquire() else { return Err(ApiError::too_many_uploads()) };
    Ok(Spool { writer: app.blobs.writer().await?, hash: BytesHash::default(), permit })
}

async fn finish(spool: Spool<'_>) -> Result<SpooledRows<'_>, ApiError> {
    let bytes = spool.writer.written();
    let blob = spool.writer.finish().await?;
    Ok(SpooledRows { part: FilePart { blob, bytes }, hash: spool.hash.finish(), _permit: spool.permit })
}

fn too_large(limit: u64) -> ApiError {
    let message = format!("The requests are too large: they may have {limit} bytes together.");
    ApiError::invalid(message).at("requests")
}

fn refusal(error: &ScanError) -> ApiError {
    match error {
        ScanError::LongRest { .. } => ApiError::invalid(format!("{error}.")),
        ScanError::Malformed { name, index } | ScanError::LongElement { name, index, .. } => {
            ApiError::invalid(format!("We could not parse the JSON body of your request. {error}."))
                .at(&format!("{name}[{index}]"))
        }
        ScanError::Twice { name } => {
            ApiError::invalid(format!("We could not parse the JSON body of your request. {error}.")).at(name)
        }
    }
}

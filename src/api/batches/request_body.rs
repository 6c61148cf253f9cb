//! The body of `POST /v1/batches`, whose member `requests` (an extension) may be as large as a file: its rows are
//! spooled to the blob store while they come, wherever the member stands.

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::HeaderMap;
use futures::StreamExt as _;

use crate::api::content_coding::{decoded_within, unreadable};
use crate::api::router::JSON_BODY_BYTES;
use crate::api::storage_room::StorageRoom;
use crate::api::upload_slots::UploadSlot;
use crate::api::{ApiError, App};
use crate::domain::file::FilePart;
use crate::domain::json_elements::{ElementScanner, ScanError};
use crate::domain::owner::Owner;
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
    _slot: UploadSlot<'a>,
    /// The room that there was for them.
    pub(super) room: StorageRoom,
}

/// The blob that is being written.
struct Spool<'a> {
    writer: BlobWriter,
    hash: BytesHash,
    slot: UploadSlot<'a>,
    room: StorageRoom,
}

/// Reads a body.
pub(super) async fn read<'a>(
    app: &'a App,
    owner: &Owner,
    headers: &HeaderMap,
    body: Body,
) -> Result<BatchRequestBody<'a>, ApiError> {
    let limit = app.intake.max_file_bytes;
    // Reading a byte would tell a client that waits for `100 Continue` to send it all.
    let rows_announced = body.size_hint().lower().saturating_sub(JSON_BODY_BYTES as u64);
    if rows_announced > limit {
        return Err(too_large(limit));
    }
    if rows_announced > 0 {
        StorageRoom::for_request(app, owner, headers).await?.check(rows_announced)?;
    }
    let mut chunks = decoded_within(headers, body, limit + JSON_BODY_BYTES as u64)?;
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
                none => none.insert(begin(app, owner, headers).await?),
            };
            let written = spool.writer.written() + lines.len() as u64;
            if written > limit {
                return Err(too_large(limit));
            }
            spool.room.check(written)?;
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

async fn begin<'a>(app: &'a App, owner: &Owner, headers: &HeaderMap) -> Result<Spool<'a>, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let slot = app.uploads.begin(owner)?;
    let room = StorageRoom::for_request(app, owner, headers).await?;
    Ok(Spool { writer: app.blobs.writer().await?, hash: BytesHash::default(), slot, room })
}

async fn finish(spool: Spool<'_>) -> Result<SpooledRows<'_>, ApiError> {
    let bytes = spool.writer.written();
    let blob = spool.writer.finish().await?;
    Ok(SpooledRows { part: FilePart { blob, bytes }, hash: spool.hash.finish(), _slot: spool.slot, room: spool.room })
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

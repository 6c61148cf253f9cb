//! `GET /v1/batches/{batch_id}/results`: the lines of the result files, while the batch runs and after. An extension:
//! OpenAI's API has only whole files, at the end.

mod events;
mod in_order;
mod merged;
mod page;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;

use super::parse_id;
use crate::api::caller::Caller;
use crate::api::content_coding::packed;
use crate::api::extract::Id;
use crate::api::page::{Query, param};
use crate::api::{ApiError, AppState, integer, sse};
use crate::domain::ids::BatchId;
use crate::domain::result_cursor::{ResultCursor, ResultKind};
use crate::domain::row::shown;
use crate::storage::ReadError;
use crate::telemetry::chain;

use reader::ResultReader;

/// The cursor behind the lines of an answer.
pub(in crate::api) const NEXT_CURSOR: HeaderName = HeaderName::from_static("batchwright-next-cursor");
/// Whether the batch has ended and no line comes behind those of an answer.
pub(in crate::api) const HAS_ENDED: HeaderName = HeaderName::from_static("batchwright-has-ended");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NDJSON: &str = "application/x-ndjson";

const MAX_LINES: i64 = 10_000;
const MAX_WAIT: i64 = 60;

/// Reads the result lines of a batch, while it runs and after, as they are in its output and error files.
///
/// The answer has whole lines, as many as fit into 8 MiB. The header `batchwright-next-cursor` has the cursor to go on
/// from, and `batchwright-has-ended` is `true` once the batch has ended and no line comes behind this answer. A client
/// that asks for `text/event-stream` gets events instead: `output` and `error` with a line each, whose id is the cursor
/// behind it, and at the end `end` with the batch. An extension of batchwright: OpenAI's API has no such operation.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/results", tag = "extensions",
    params(
        ("batch_id" = String, Path, pattern = "^batch"),
        ("after" = Option<String>, Query, description = "Only lines behind this cursor"),
        ("kind" = Option<String>, Query, pattern = "^(all|output|errors)?$",
            description = "`all` (default), `output` or `errors`: the file of the lines"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 10000, description = "The most lines, 1 to 10000"),
        ("wait" = Option<u32>, Query, minimum = 0, maximum = 60,
            description = "0 to 60: the seconds to wait for a line if there is none"),
        ("order" = Option<String>, Query, pattern = "^(input)?$",
            description = "`input`: all lines of a batch that has ended, in the order of its input file"),
        ("merge" = Option<bool>, Query,
            description = "`true`: all lines of the batch named by `retry_of`, in the order of its input, with the \
                           lines of this batch in the place of those of rows that it has run again"),
        ("Last-Event-ID" = Option<String>, Header, description = "Of a stream of events: the cursor to go on from")
    ),
    responses(
        (status = 200, description = "The lines", content((String = "application/x-ndjson"),
            (serde_json::Value = "text/event-stream")), headers(
            ("batchwright-next-cursor" = String, description = "The cursor behind the last line of this answer"),
            ("batchwright-has-ended" = bool, description = "Whether no line comes behind those of this answer"))),
        (status = 400, description = "A parameter is wrong, or the batch has not ended and has no order yet",
            body = crate::api::error::ErrorBody),
        (status = 404, description = "There is no such batch, or its file was deleted or has expired",
            body = crate::api::error::ErrorBody),
        (status = 503, description = "Too many clients wait", body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn list_batch_results(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let reader = ResultReader::new(Arc::clone(&app), owner, parse_id(&id)?, kind(&query)?);
    let merge = is_merged(&query)?;
    if is_in_order(&query)? || merge {
        return Ok(packed(&headers, in_order::answer(reader, merge).await?));
    }
    let limit = param(&query, "limit").map(|text| integer::in_text("limit", text, 1..=MAX_LINES)).transpose()?;
    let wait = param(&query, "wait").map_or(Ok(0), |text| integer::in_text("wait", text, 0..=MAX_WAIT))?;
    if sse::are_asked_for(&headers) {
        let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
        let from = last.map_or_else(|| after(&query), |id| cursor("Last-Event-ID", id))?;
        return events::answer(reader, from).await;
    }
    let wait = Duration::from_secs(wait.unsigned_abs());
    let page = page::answer(reader, after(&query)?, limit.map(i64::unsigned_abs), wait).await?;
    Ok(packed(&headers, page))
}

fn kind(query: &Query) -> Result<ResultKind, ApiError> {
    let Some(text) = param(query, "kind") else { return Ok(ResultKind::All) };
    ResultKind::parse(text).ok_or_else(|| ApiError::wrong_value("kind", text, &ResultKind::ALL.map(ResultKind::as_str)))
}

/// Whether the lines are to come in the order of the input, which is all of them at once.
fn is_in_order(query: &Query) -> Result<bool, ApiError> {
    match param(query, "order") {
        None => Ok(false),
        Some("input") => without(query, "order=input", &["after", "limit", "wait"]).map(|()| true),
        Some(other) => Err(ApiError::wrong_value("order", other, &["input"])),
    }
}

/// Whether the lines of the batches are to be merged of which each has run rows of the one before again.
fn is_merged(query: &Query) -> Result<bool, ApiError> {
    match param(query, "merge") {
        None | Some("false") => Ok(false),
        Some("true") => without(query, "merge=true", &["after", "limit", "wait", "kind"]).map(|()| true),
        Some(other) => Err(ApiError::wrong_value("merge", other, &["true", "false"])),
    }
}

/// Refuses parameters that choose lines from an answer that has all of them.
fn without(query: &Query, with: &str, names: &[&str]) -> Result<(), ApiError> {
    match names.iter().find(|name| param(query, name).is_some()) {
        None => Ok(()),
        Some(name) => {
            let message = format!("Invalid '{name}': with {with}, one answer has all lines. Leave '{name}' out.");
            Err(ApiError::invalid(message).at(name))
        }
    }
}

fn after(query: &Query) -> Result<ResultCursor, ApiError> {
    param(query, "after").map_or(Ok(ResultCursor::default()), |text| cursor("after", text))
}

fn cursor(name: &str, text: &str) -> Result<ResultCursor, ApiError> {
    ResultCursor::parse(text).ok_or_else(|| {
        ApiError::invalid(format!(
            "Invalid '{name}': '{}' is no cursor. Send what the header batchwright-next-cursor or the id of an event \
             said, or leave it out to begin with the first line.",
            shown(text)
        ))
        .at(name)
        .code("invalid_value")
    })
}

/// Logs that lines could not be read in the middle of an answer.
fn log_break(batch: BatchId, error: &ReadError) {
    tracing::error!(batch_id = %batch, error = chain(error), "results broke off");
}

/// The error for a cursor that is in its form, and not at a line of the batch.
fn no_such_place(cursor: ResultCursor) -> ApiError {
    ApiError::invalid(format!(
        "The cursor '{cursor}' is not at a line of this batch: it is of another batch or was damaged. Leave it out to \
         begin with the first line."
    ))
    .at("after")
    .code("invalid_value")
}

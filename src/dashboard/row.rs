//! `/dashboard/batches/{batch_id}/rows`: one row, its request, its attempts, its result and the steps of its tool loop,
//! with every number as it came.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::Deserialize;

use super::attempts::{AttemptLine, said_of};
use super::batch::{no_batch, parse_id};
use super::json_text::indented;
use super::page::{PageError, page};
use super::view::{Layout, Moment, row_url, size, took};
use crate::actions::request_state;
use crate::api::{App, AppState, Caller};
use crate::domain::batch::Batch;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::owner::Owner;
use crate::domain::response::{Step, StepBody};
use crate::domain::row::{RowCall, shown};
use crate::storage::blobs::BlobError;
use crate::storage::rows::RowReader;

/// The longest text that stands in the page.
const SHOWN_BYTES: usize = 256 << 10;

/// What the URL says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RowQuery {
    custom_id: String,
    part: String,
    /// The number of the row, if it is known, so that it need not be searched again.
    row: Option<u32>,
}

#[derive(Template)]
#[template(path = "row.html")]
struct RowPage {
    layout: Layout,
    batch: BatchId,
    custom_id: String,
    id: RequestId,
    row: u32,
    state: &'static str,
    /// Where the page is asked for again; `None` once nothing changes any more.
    again: Option<String>,
    attempts: String,
    attempt_lines: Vec<AttemptLine>,
    request: Text,
    result: Option<Text>,
    /// Its result was in a file that is gone.
    is_gone: bool,
    steps: Vec<StepView>,
}

/// A text as it came, and indented if it is not too long to be shown.
struct Text {
    shown: Option<String>,
    size: String,
    url: String,
}

/// A step, at its place in the tree.
struct StepView {
    path: String,
    depth: usize,
    what: String,
    state: &'static str,
    attempts: u32,
    started: Moment,
    took: String,
    error: String,
    arguments: Option<String>,
    result: Option<String>,
}

/// A row that was found.
struct FoundRow {
    batch: Batch,
    reader: RowReader,
    row: u32,
}

pub(super) async fn row_by_path(
    state: AppState,
    caller: Caller,
    Path((batch_id, custom_id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let query = RowQuery { custom_id, ..RowQuery::default() };
    row_by_query(state, caller, Path(batch_id), Query(query), headers).await
}

pub(super) async fn row_by_query(
    State(app): AppState,
    caller: Caller,
    Path(batch_id): Path<String>,
    Query(query): Query<RowQuery>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let FoundRow { batch, reader, row } = find(&app, &caller.owner, &batch_id, &query).await?;
    let custom_id = query.custom_id;
    let id = RequestId { batch: batch.id, row };
    let now = app.clock.now();
    let stands = request_state(&*app.storage, &app.blobs, &caller.owner, &batch, &reader, row, now).await?;
    let attempts = app.storage.attempts(&caller.owner, id).await?;
    let steps = app.storage.steps(&caller.owner, id).await?;
    let request = reader.line(row).await?.unwrap_or_default();
    let text = |part: &str, bytes: &Bytes| Text::of(batch.id, &custom_id, part, bytes);
    let are_kept = batch.milestones.ended_at().is_none_or(|ended| now.since(ended) < app.steps_retention);
    let said = said_of(attempts.as_ref(), &steps, stands.as_ref(), are_kept);
    let is_gone = stands.is_none();
    let (state, line) = stands.map_or(("unknown", None), |(state, line)| (state.as_str(), line));
    let row_page = RowPage {
        layout: Layout::of("batches", format!("Row {}", shown(&custom_id))).for_caller(&caller),
        batch: batch.id,
        id,
        row,
        state,
        again: (line.is_none() && !batch.status.is_terminal())
            .then(|| format!("{}&row={row}", row_url(batch.id, &custom_id))),
        attempts: said,
        attempt_lines: attempts.as_ref().map(AttemptLine::all).unwrap_or_default(),
        request: text("request", &request),
        result: line.as_ref().map(|line| text("result", line)),
        is_gone,
        steps: in_tree_order(steps).into_iter().map(StepView::of).collect(),
        custom_id,
    };
    page(&row_page, &headers)
}

/// The bytes of a request or a result, to be kept.
pub(super) async fn text(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Path(batch_id): Path<String>,
    Query(query): Query<RowQuery>,
) -> Result<Response, PageError> {
    let FoundRow { batch, reader, row } = find(&app, &owner, &batch_id, &query).await?;
    let (bytes, name) = match query.part.as_str() {
        "request" => (reader.line(row).await?, "request.json"),
        "result" => {
            let now = app.clock.now();
            let stands = request_state(&*app.storage, &app.blobs, &owner, &batch, &reader, row, now).await?;
            (stands.and_then(|(_, line)| line), "result.json")
        }
        _ => (None, ""),
    };
    let bytes = bytes.ok_or_else(|| PageError::not_found("There is no such part of the row."))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"row-{row}-{name}\"")),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
    ];
    Ok((headers, bytes).into_response())
}

async fn find(app: &Arc<App>, owner: &Owner, batch_id: &str, query: &RowQuery) -> Result<FoundRow, PageError> {
    let custom_id = &query.custom_id;
    let batch = app.storage.batch(owner, parse_id(batch_id)?).await?.ok_or_else(no_batch)?;
    let no_row = || PageError::not_found(format!("The batch has no row with the custom_id '{}'.", shown(custom_id)));
    let input = app.storage.batch_input(owner, batch.id).await?;
    let input = input.ok_or_else(|| PageError::not_found("The input file of the batch is not there any more."))?;
    let reader = RowReader::new(app.blobs.clone(), input);
    let row = match query.row {
        Some(row) if is_named(&reader, row, custom_id).await? => Some(row),
        _ => reader.row_named(custom_id).await?,
    };
    Ok(FoundRow { batch, reader, row: row.ok_or_else(no_row)? })
}

async fn is_named(reader: &RowReader, row: u32, custom_id: &str) -> Result<bool, BlobError> {
    let line = reader.line(row).await?.unwrap_or_default();
    Ok(serde_json::from_slice::<RowCall<'_>>(&line).is_ok_and(|call| call.custom_id == custom_id))
}

/// The steps with those that are part of each behind it.
fn in_tree_order(mut steps: Vec<Step>) -> Vec<Step> {
    steps.sort_by(|one, other| one.path.cmp(&other.path));
    steps
}

impl Text {
    fn of(batch: BatchId, custom_id: &str, part: &str, bytes: &Bytes) -> Self {
        let is_shown = bytes.len() <= SHOWN_BYTES;
        let url = row_url(batch, custom_id).replacen("/rows?", "/text?", 1);
        Self {
            shown: is_shown.then(|| indented(&String::from_utf8_lossy(bytes))),
            size: size(bytes.len() as u64),
            url: format!("{url}&part={part}"),
        }
    }
}

impl StepView {
    fn of(step: Step) -> Self {
        let length = step.ended_at.map(|ended| ended.since(step.started_at));
        let (what, arguments, result) = match step.body {
            StepBody::ModelCall(turn) => {
                let turn = turn.and_then(|turn| serde_json::to_string(&turn).ok());
                ("model".to_owned(), None, turn)
            }
            StepBody::ToolCall(call, output) => {
                (format!("tool {}", call.name), Some(call.arguments), output.map(|output| output.output))
            }
        };
        let shown = |text: String| {
            let end = text.floor_char_boundary(SHOWN_BYTES);
            if end < text.len() { format!("{} …", &text[..end]) } else { indented_if_json(&text) }
        };
        Self {
            depth: step.path.to_string().split('.').count().min(8),
            path: step.path.to_string(),
            what,
            state: step.state.as_str(),
            attempts: step.attempts,
            started: Moment::at(step.started_at),
            took: length.map_or_else(|| "–".to_owned(), took),
            error: step.error.unwrap_or_default(),
            arguments: arguments.map(shown),
            result: result.map(shown),
        }
    }
}

/// What a tool answers need not be JSON.
fn indented_if_json(text: &str) -> String {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_json { indented(text) } else { text.to_owned() }
}

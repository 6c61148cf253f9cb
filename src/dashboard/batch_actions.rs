//! What can be done about a batch: cancel, pause, resume, and run the rows again that failed. Each can be sent twice
//! without harm, and the server refuses what the batch does not allow.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::batch::{no_batch, parse_id};
use super::page::PageError;
use super::view::{grouped, plural};
use crate::actions::RetryBatchError;
use crate::api::{App, AppState, Caller, StorageRoom};
use crate::domain::batch::{Batch, BatchRetry, BatchStatus, NewBatch, RetryOptions, Window};
use crate::domain::ids::BatchId;

/// An action that a batch allows.
pub(super) struct BatchAction {
    /// Its place in the URL, and the id of its dialog.
    pub(super) name: &'static str,
    /// What its button says.
    pub(super) label: &'static str,
    /// What it does to how many rows, as a sentence.
    pub(super) effect: String,
    pub(super) is_dangerous: bool,
}

/// The actions that a batch allows now.
pub(super) fn batch_actions(batch: &Batch) -> Vec<BatchAction> {
    let rows = |count: u64| format!("{} row{}", grouped(count), plural(count));
    let owed = batch.counts.owed();
    let mut actions = Vec::new();
    let mut add = |name, label, effect, is_dangerous| {
        actions.push(BatchAction { name, label, effect, is_dangerous });
    };
    if batch.status.starts_rows() {
        if batch.pause.is_some() {
            add("resume", "Resume…", format!("{} without a result may run again.", rows(owed)), false);
        } else {
            add("pause", "Pause…", format!("{} without a result will wait until it is resumed.", rows(owed)), false);
        }
    }
    let failed = batch.counts.total.saturating_sub(batch.counts.completed);
    if batch.status.is_terminal() && failed > 0 {
        add("retry", "Retry…", format!("{} will run again, in a batch of their own.", rows(failed)), false);
    }
    if !batch.status.is_terminal() && batch.status != BatchStatus::Cancelling {
        let effect = match owed {
            0 => "It has no row that waits.".to_owned(),
            owed => format!("{} without a result will not be run.", rows(owed)),
        };
        add("cancel", "Cancel…", effect, true);
    }
    actions
}

/// Cancels a batch.
pub(super) async fn cancel(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let batch = app.storage.cancel_batch(&owner, parse_id(&id)?, app.clock.now()).await?.ok_or_else(no_batch)?;
    if batch.status.is_terminal() && batch.status != BatchStatus::Cancelled {
        return Err(not_allowed("cancelled", &batch));
    }
    Ok(done(&app, batch.id))
}

/// Pauses a batch.
pub(super) async fn pause(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let batch = app.storage.pause_batch(&owner, parse_id(&id)?, app.clock.now()).await?.ok_or_else(no_batch)?;
    if batch.status.starts_rows() { Ok(done(&app, batch.id)) } else { Err(not_allowed("paused", &batch)) }
}

/// Resumes a batch.
pub(super) async fn resume(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let batch = app.storage.resume_batch(&owner, parse_id(&id)?).await?.ok_or_else(no_batch)?;
    if batch.status.starts_rows() { Ok(done(&app, batch.id)) } else { Err(not_allowed("resumed", &batch)) }
}

/// Runs the rows of a batch again that failed or never ran. Again leads to the same new batch.
pub(super) async fn retry(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let old = app.storage.batch(&owner, parse_id(&id)?).await?.ok_or_else(no_batch)?;
    let Ok(_slot) = app.uploads.begin(&owner) else {
        let message = "Too many files are uploaded at once. Try again in a moment.";
        return Err(PageError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let room = StorageRoom::of(&app, &owner).await.map_err(|_| PageError::internal())?;
    let intake = room.within(&app.intake);
    let windows: &[Window] = &app.windows;
    let window = windows.iter().find(|window| window.text == old.completion_window).or(windows.first());
    let new = NewBatch {
        input_file_id: old.input_file_id.clone(),
        endpoint: old.endpoint,
        window: window.ok_or_else(PageError::internal)?.clone(),
        metadata: None,
        output_expires_after: old.output_expires_after,
        idempotency_key: Some(format!("retry-of-{}", old.id)),
        canary: None,
        retry: Some(BatchRetry { of: old.id, options: RetryOptions::default() }),
        webhook: None,
        is_message_batch: false,
    };
    match app.retrier(&owner, old.id, &intake).create_batch(&old, new, app.clock.now()).await {
        Err(RetryBatchError::TooLarge) if intake != app.intake => {
            let message = "The project has no room for the rows. Delete files that are not needed any more.";
            Err(PageError::new(StatusCode::CONFLICT, message))
        }
        created => Ok(done(&app, created?.id)),
    }
}

fn not_allowed(what: &str, batch: &Batch) -> PageError {
    let message = format!("The batch cannot be {what}: its status is '{}'.", batch.status);
    PageError::new(StatusCode::CONFLICT, message)
}

fn done(app: &Arc<App>, id: BatchId) -> Response {
    app.wakeup.wake();
    Redirect::to(&format!("/dashboard/batches/{id}")).into_response()
}

impl From<RetryBatchError> for PageError {
    fn from(error: RetryBatchError) -> Self {
        match error {
            RetryBatchError::Batch(error) => error.into(),
            RetryBatchError::Read(error) => error.into(),
            refused => Self::new(StatusCode::CONFLICT, refused.to_string()),
        }
    }
}

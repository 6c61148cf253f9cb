//! The check of a batch's input: the lanes that the batch opens, or a list of what is wrong.

use std::time::Duration;

use crate::daemon::core::DaemonCore;
use crate::daemon::lost_input::GONE_AFTER;
use crate::domain::batch::{Batch, BatchError};
use crate::domain::ids::FileId;
use crate::domain::project_limits::QueuedInput;
use crate::domain::report::{NewLane, file_not_found};
use crate::domain::row::shown;
use crate::domain::time::Timestamp;
use crate::storage::{Result, Storage, StorageError};

/// The input of a batch that can run it.
pub(super) struct ValidInput {
    /// The lanes that the batch opens.
    pub(super) lanes: Vec<NewLane>,
    /// What counts against the limits of the project.
    pub(super) size: QueuedInput,
}

/// The input of a batch that has not been admitted. The inner error is the list of reasons why the batch cannot run.
pub(super) async fn validated<S: Storage>(
    shared: &DaemonCore<S>,
    batch: &Batch,
) -> Result<std::result::Result<ValidInput, Vec<BatchError>>> {
    let input = match input(shared, batch).await? {
        Ok(input) => input,
        Err(errors) => return Ok(Err(errors)),
    };
    if shared.settings.refuses_unknown_models && !shared.registry.may_learn_of_models() {
        let unknown = input.lanes.iter().filter(|lane| !shared.registry.serves(&lane.model));
        let errors: Vec<_> = unknown.map(|lane| model_not_found(&lane.model)).collect();
        if !errors.is_empty() {
            return Ok(Err(errors));
        }
    }
    Ok(Ok(input))
}

/// Whether the check of a batch, which has failed with this error and for so long, is not to be tried again. Corrupt
/// data stays corrupt. Any other fault of this batch alone may pass while its window is open; after that the batch
/// would not run anyway.
pub(super) fn is_hopeless(error: &StorageError, failing_for: Duration, batch: &Batch, now: Timestamp) -> bool {
    let is_corrupt = matches!(error, StorageError::Corrupt { .. });
    !error.is_outage() && (is_corrupt && failing_for >= GONE_AFTER || now >= batch.expires_at)
}

async fn input<S: Storage>(
    shared: &DaemonCore<S>,
    batch: &Batch,
) -> Result<std::result::Result<ValidInput, Vec<BatchError>>> {
    let not_found = || Ok(Err(vec![file_not_found(&batch.input_file_id)]));
    let Some(id) = FileId::parse(&batch.input_file_id) else { return not_found() };
    // It may be deleted since: a batch that was accepted runs.
    let Some(file) = shared.storage.input_file(&batch.owner, id, batch.created_at).await? else { return not_found() };
    let Some(report) = shared.storage.file_report(&batch.owner, id).await? else { return not_found() };
    let lanes = report.lanes(batch.endpoint, file.bytes, &shared.settings.limits);
    // A batch with fewer rows than its file would end `completed` all the same.
    if lanes.as_ref().is_ok_and(|lanes| lanes.iter().map(NewLane::rows).sum::<u64>() != report.rows) {
        return Err(StorageError::Corrupt { table: "files", column: "report", id: batch.input_file_id.clone() });
    }
    let size = QueuedInput { rows: report.rows, bytes: file.bytes };
    Ok(lanes.map(|lanes| ValidInput { lanes, size }))
}

fn model_not_found(model: &str) -> BatchError {
    BatchError {
        code: "model_not_found".to_owned(),
        message: format!("The model '{}' does not exist here. GET /v1/models lists those that do.", shown(model)),
        param: Some("body.model".to_owned()),
        line: None,
    }
}

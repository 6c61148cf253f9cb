//! Validation: a batch that was created either opens its lanes or fails with what is wrong with its input.

use std::sync::Arc;

use super::context::Context;
use super::duty::Turn;
use crate::domain::batch::{Batch, BatchError};
use crate::domain::ids::FileId;
use crate::domain::report::{NewLane, file_not_found};
use crate::storage::{Result, Storage, StorageError};
use crate::telemetry::chain;

const BATCHES: u32 = 64;

/// Admits or refuses the batches that wait for it.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    let waiting = context.storage.batches_to_admit(BATCHES).await?;
    let any = !waiting.is_empty();
    let mut failed = None;
    for batch in waiting {
        // One batch that cannot be judged must not keep the others waiting.
        if let Err(error) = judge(&context, &batch).await {
            tracing::error!(batch_id = %batch.id, error = %chain(&error), "a batch could not be validated");
            failed = Some(error);
        }
    }
    if any {
        context.wakeup.wake();
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn judge<S: Storage, H, P>(context: &Context<S, H, P>, batch: &Batch) -> Result<()> {
    match lanes(context, batch).await? {
        Ok(lanes) => {
            if context.storage.admit_batch(batch.id, &lanes, context.clock.now()).await? {
                tracing::info!(batch_id = %batch.id, lanes = lanes.len(), "batch in progress");
            }
        }
        Err(errors) => {
            if context.storage.refuse_batch(batch.id, &errors, context.clock.now()).await? {
                tracing::info!(batch_id = %batch.id, errors = errors.len(), "batch failed validation");
            }
        }
    }
    Ok(())
}

async fn lanes<S: Storage, H, P>(
    context: &Context<S, H, P>,
    batch: &Batch,
) -> Result<std::result::Result<Vec<NewLane>, Vec<BatchError>>> {
    let not_found = || Ok(Err(vec![file_not_found(&batch.input_file_id)]));
    let Some(id) = FileId::parse(&batch.input_file_id) else { return not_found() };
    let Some(file) = context.storage.file(id, context.clock.now()).await? else { return not_found() };
    let Some(report) = context.storage.file_report(id).await? else { return not_found() };
    let lanes = report.lanes(batch.endpoint, file.bytes, &context.settings.limits);
    // A batch with fewer rows than its file would end `completed` all the same.
    if lanes.as_ref().is_ok_and(|lanes| lanes.iter().map(NewLane::rows).sum::<u64>() != report.rows) {
        return Err(StorageError::Corrupt { table: "files", column: "report", id: batch.input_file_id.clone() });
    }
    Ok(lanes)
}

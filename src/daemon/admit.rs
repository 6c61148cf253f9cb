//! Validation: a batch that was created either opens its lanes or fails with what is wrong with its input.

use std::sync::Arc;

use super::context::Context;
use super::duty::Turn;
use crate::domain::batch::{Batch, BatchError};
use crate::domain::ids::FileId;
use crate::domain::report::{NewLane, file_not_found};
use crate::storage::{Result, Storage};

const BATCHES: u32 = 64;

/// Admits or refuses the batches that wait for it.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    let waiting = context.storage.batches_to_admit(BATCHES).await?;
    let any = !waiting.is_empty();
    for batch in waiting {
        let now = context.clock.now();
        match lanes(&context, &batch).await? {
            Ok(lanes) => {
                if context.storage.admit_batch(batch.id, &lanes, now).await? {
                    tracing::info!(batch_id = %batch.id, lanes = lanes.len(), "batch in progress");
                }
            }
            Err(errors) => {
                if context.storage.refuse_batch(batch.id, &errors, now).await? {
                    tracing::info!(batch_id = %batch.id, errors = errors.len(), "batch failed validation");
                }
            }
        }
    }
    if any {
        context.wakeup.wake();
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
    Ok(report.lanes(batch.endpoint, file.bytes, &context.settings.limits))
}

//! Ending batches: the rows that never ran get their lines, the files are published, the status becomes terminal.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use roaring::RoaringBitmap;

use super::context::Context;
use super::duty::Turn;
use crate::domain::batch::{Batch, BatchStatus, Counts};
use crate::domain::file::FilePart;
use crate::domain::ids::RequestId;
use crate::domain::index;
use crate::domain::line::{self, NeverRan};
use crate::domain::row::RowCall;
use crate::processor::ProcessorError;
use crate::storage::rows::{READ_BYTES, RowReader};
use crate::storage::{Ending, RecordedPart, Storage};
use crate::telemetry::metrics;

const BATCHES: u32 = 64;
/// Rows looked at together; a million rows take this many at a time.
const POSITIONS: usize = 8192;
/// How long the files of a batch are kept if the client does not say (contract §8.1).
const FILES_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Ends every batch that can be ended.
pub(super) async fn tick<S: Storage, H, P>(context: Arc<Context<S, H, P>>) -> Turn {
    for batch in context.storage.batches_to_finish(BATCHES).await? {
        // A living daemon holds a lease of it: its turn comes when that one is given back.
        let Some(counts) = context.storage.fence(batch.id).await? else { continue };
        finish(&context, &batch, counts).await?;
    }
    Ok(())
}

async fn finish<S: Storage, H, P>(context: &Context<S, H, P>, batch: &Batch, counts: Counts) -> Turn {
    let never_ran = if counts.owed() > 0 { Some(write_owed(context, batch, counts).await?) } else { None };
    let now = context.clock.now();
    let ending = Ending {
        id: batch.id,
        from: batch.status,
        never_ran,
        files_expire_at: Some(now.plus(batch.output_expires_after.unwrap_or(FILES_KEPT))),
    };
    if context.storage.finish(&ending, now).await? {
        metrics::batch_ended();
        tracing::info!(
            batch_id = %batch.id,
            total = counts.total,
            completed = counts.completed,
            failed = counts.failed,
            never_ran = counts.owed(),
            "batch ended"
        );
    }
    Ok(())
}

/// Writes the lines of the rows that have none. The batch is fenced: the ledger does not change meanwhile.
async fn write_owed<S: Storage, H, P>(
    context: &Context<S, H, P>,
    batch: &Batch,
    counts: Counts,
) -> Result<RecordedPart, ProcessorError> {
    let why = if batch.status == BatchStatus::Cancelling { NeverRan::Cancelled } else { NeverRan::Expired };
    let recorded = context.storage.recorded_rows(batch.id).await?;
    let input = context.storage.batch_input(batch.id).await?.ok_or("the batch's input file is not in the database")?;
    let reader = RowReader::new(context.blobs.clone(), input);
    let mut writer = context.blobs.writer().await?;
    let mut rows = RoaringBitmap::new();
    let total = u32::try_from(counts.total)?;
    for first in (0..total).step_by(POSITIONS) {
        let last = total.min(first + u32::try_from(POSITIONS)?);
        let mut owed = reader.entries(first..last).await?;
        owed.retain(|entry| !recorded.contains(entry.row));
        let runs = stream::iter(index::runs(&owed, READ_BYTES));
        let mut reads = runs.map(|run| reader.lines(&owed[run])).buffered(2);
        while let Some(lines) = reads.try_next().await? {
            let mut written = Vec::new();
            for (row, text) in lines {
                let call: RowCall<'_> = serde_json::from_slice(&text)?;
                written.extend(line::never_ran(RequestId { batch: batch.id, row }, &call.custom_id, why));
                rows.insert(row);
            }
            writer.write(written.into()).await?;
        }
    }
    let bytes = writer.written();
    Ok(RecordedPart { part: FilePart { blob: writer.finish().await?, bytes }, lines: rows.len(), rows })
}

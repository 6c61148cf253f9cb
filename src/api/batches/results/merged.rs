//! The result lines of a batch and of those whose rows it has run again, merged: one line for each row of the first.

use super::reader::ResultReader;
use crate::api::ApiError;
use crate::domain::batch::Batch;
use crate::storage::result_files::InputOrder;

/// The most batches whose lines are merged.
const MAX_BATCHES: usize = 100;

/// The lines of all rows of the first batch, each of the last batch that has one for the row.
///
/// The input of a batch that runs rows again has these rows in their order. So the error file of the batch before tells
/// which row each of them was.
pub(super) async fn merged(reader: &ResultReader, last: Batch) -> Result<InputOrder, ApiError> {
    let batches = with_those_before(reader, last).await?;
    let first = &batches[0];
    let mut merged = None::<InputOrder>;
    // The number in the first batch of each row of the batch at hand.
    let mut rows: Vec<u32> = (0..u32::try_from(first.counts.total).unwrap_or(u32::MAX)).collect();
    for (no, batch) in batches.iter().enumerate() {
        let files = reader.of(batch.id).files(batch).await?;
        let run_again = match batches.get(no + 1).and_then(|next| next.retry.as_ref()) {
            Some(retry) => files.failed_rows(&retry.options.codes).await?,
            None => roaring::RoaringBitmap::new(),
        };
        let lines = files.in_order(batch.counts.total, reader.kind).await?;
        match &mut merged {
            None => merged = Some(lines),
            Some(merged) => merged.replace(lines, &rows),
        }
        rows = run_again.iter().filter_map(|row| rows.get(row as usize).copied()).collect();
    }
    Ok(merged.expect("there is a first batch"))
}

/// A batch behind those whose rows it has run again, the first of all first.
async fn with_those_before(reader: &ResultReader, last: Batch) -> Result<Vec<Batch>, ApiError> {
    let mut batches = vec![last];
    while let Some(retry) = &batches[batches.len() - 1].retry {
        if batches.len() == MAX_BATCHES {
            let message =
                format!("The results of more than {MAX_BATCHES} batches cannot be merged. Read each by itself.");
            return Err(ApiError::invalid(message).at("merge"));
        }
        let before = reader.of(retry.of).batch().await?;
        batches.push(before);
    }
    batches.reverse();
    Ok(batches)
}

//! Writes the lines of rows that never ran, when their batch ends.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use roaring::RoaringBitmap;

use crate::daemon::core::DaemonCore;
use crate::daemon::rows::LastFailures;
use crate::daemon::timer::DutyError;
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::index;
use crate::domain::line::{self, NeverRan};
use crate::domain::row::RowCall;
use crate::domain::splitter::{Line, LineSplitter};
use crate::storage::blobs::{BlobError, BlobWriter, FileBytes};
use crate::storage::rows::{READ_BYTES, RowReader};
use crate::storage::{RecordedPart, Storage};

/// Rows read together. It bounds the memory for a batch of any size.
const POSITIONS: usize = 8192;
/// Of a longer line the `custom_id` is not looked for, because that takes the whole line in memory. Intake refuses such
/// lines unless its limits are raised.
const LONGEST_NAMED: usize = 16 << 20;

/// The rows that have no line.
pub(super) struct Owed {
    pub(super) batch: BatchId,
    /// How many rows the batch has; they are numbered from 0.
    pub(super) total: u32,
    pub(super) recorded: RoaringBitmap,
    pub(super) why: NeverRan,
}

/// Why the lines could not be written.
pub(super) enum OwedError {
    /// The input or its row index cannot be read.
    Input(DutyError),
    /// The lines cannot be stored.
    Output(BlobError),
}

/// Writes the lines, each with the `custom_id` that its row has in the input.
pub(super) async fn write<S: Storage>(shared: &DaemonCore<S>, owed: &Owed) -> Result<RecordedPart, OwedError> {
    let input = shared.storage.any_batch_input(owed.batch).await.map_err(input_error)?;
    let input = input.ok_or_else(|| input_error("the batch's input file is not in the database"))?;
    let reader = RowReader::new(shared.blobs.clone(), input);
    let mut lines = Lines::new(shared, owed).await.map_err(OwedError::Output)?;
    for first in (0..owed.total).step_by(POSITIONS) {
        let last = owed.total.min(first.saturating_add(u32::try_from(POSITIONS).expect("few")));
        let mut entries = reader.entries(first..last).await.map_err(input_error)?;
        entries.retain(|entry| !owed.recorded.contains(entry.row));
        let slices = stream::iter(index::slices(&entries, READ_BYTES));
        let mut reads = slices.map(|slice| reader.lines(&entries[slice])).buffered(2);
        while let Some(rows) = reads.try_next().await.map_err(input_error)? {
            for (row, text) in rows {
                let call: RowCall<'_> = serde_json::from_slice(&text).map_err(input_error)?;
                lines.push(row, &call.custom_id, owed.why);
            }
            lines.write().await.map_err(OwedError::Output)?;
        }
    }
    lines.finish().await.map_err(OwedError::Output)
}

/// Writes the lines when the input is lost. They have their `custom_id` as far as the file can still be read from its
/// start, and an empty one after that: the ledger says by row numbers alone which rows are owed.
pub(super) async fn write_without_input<S: Storage>(
    shared: &DaemonCore<S>,
    owed: &Owed,
) -> Result<RecordedPart, BlobError> {
    let mut lines = Lines::new(shared, owed).await?;
    let mut next = 0;
    if let Ok(Some(input)) = shared.storage.any_batch_input(owed.batch).await {
        let file = FileBytes::new(input.parts);
        let mut pieces = pin!(file.stream(&shared.blobs, 0..file.len()));
        let mut splitter = LineSplitter::new(LONGEST_NAMED);
        while let Ok(Some(piece)) = pieces.try_next().await {
            splitter.push(&piece, |text| next = lines.push_named(owed, next, &text));
            lines.write().await?;
        }
        splitter.finish(|text| next = lines.push_named(owed, next, &text));
    }
    for row in next..owed.total {
        if !owed.recorded.contains(row) {
            lines.push(row, "", NeverRan::InputUnavailable);
        }
        if lines.pending.len() >= POSITIONS {
            lines.write().await?;
        }
    }
    lines.finish().await
}

/// The part that is being written.
struct Lines {
    batch: BatchId,
    writer: BlobWriter,
    pending: Vec<u8>,
    count: u64,
    rows: RoaringBitmap,
    last_failures: Arc<LastFailures>,
}

impl Lines {
    async fn new<S>(shared: &DaemonCore<S>, owed: &Owed) -> Result<Self, BlobError> {
        let writer = shared.blobs.writer().await?;
        let (rows, last_failures) = (RoaringBitmap::new(), shared.last_failures.clone());
        Ok(Self { batch: owed.batch, writer, pending: Vec::new(), count: 0, rows, last_failures })
    }

    fn push(&mut self, row: u32, custom_id: &str, why: NeverRan) {
        let id = RequestId { batch: self.batch, row };
        let last_failure = self.last_failures.of(id);
        self.pending.extend(line::never_ran(id, custom_id, why, last_failure.as_deref()));
        self.rows.insert(row);
        self.count += 1;
    }

    /// Takes a line of the input as row number `row`, and returns the number of the next row. A blank line is no row,
    /// as at intake.
    fn push_named(&mut self, owed: &Owed, row: u32, text: &Line<'_>) -> u32 {
        let text = match text {
            Line::Whole { bytes, .. } if bytes.trim_ascii().is_empty() => return row,
            Line::Whole { bytes, .. } => *bytes,
            Line::TooLong { .. } => &[],
        };
        if row < owed.total && !owed.recorded.contains(row) {
            match serde_json::from_slice::<RowCall<'_>>(text) {
                Ok(call) => self.push(row, &call.custom_id, owed.why),
                Err(_) => self.push(row, "", NeverRan::InputUnavailable),
            }
        }
        row.saturating_add(1)
    }

    async fn write(&mut self) -> Result<(), BlobError> {
        self.writer.write(Bytes::from(std::mem::take(&mut self.pending))).await
    }

    async fn finish(mut self) -> Result<RecordedPart, BlobError> {
        self.write().await?;
        let bytes = self.writer.written();
        Ok(RecordedPart {
            part: FilePart { blob: self.writer.finish().await?, bytes },
            lines: self.count,
            rows: self.rows,
        })
    }
}

fn input_error(error: impl Into<DutyError>) -> OwedError {
    OwedError::Input(error.into())
}

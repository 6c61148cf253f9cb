//! The ledger: outcomes on their way into it, what contradicts it, and how a batch ends by it.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use roaring::RoaringBitmap;

use super::Result;
use crate::domain::attempts::RowAttempts;
use crate::domain::batch::{BatchStatus, Counts};
use crate::domain::file::FilePart;
use crate::domain::ids::{BatchId, BlobId, RequestId};
use crate::domain::lease::LeaseHold;
use crate::domain::owner::Owner;
use crate::domain::report::NewLane;
use crate::domain::statistics::RecordedRows;
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

/// Outcomes to be recorded together, for any number of batches. Their lines are in the blob store already.
#[derive(Debug, Clone, Default)]
pub struct Flush {
    /// What is to be recorded of each batch.
    pub batches: BTreeMap<BatchId, BatchFlush>,
    /// A batch is paused when so many of its rows failed alike, and no other has ended; 0: never.
    pub pause_after_alike: u64,
}

/// Outcomes of rows of one batch.
#[derive(Debug, Clone, Default)]
pub struct BatchFlush {
    /// The lines of the rows that succeeded.
    pub output: Option<RecordedPart>,
    /// The lines of the rows that failed.
    pub error: Option<RecordedPart>,
    /// Tokens used.
    pub usage: Usage,
    /// The same by model, and the failures by kind, for the batch's statistics.
    pub statistics: RecordedRows,
    /// The rows that were run under each lease, by the token that was held.
    pub leases: BTreeMap<LeaseHold, RoaringBitmap>,
    /// The attempts of the rows that were tried again, by the number of the row.
    pub attempts: BTreeMap<u32, RowAttempts>,
}

/// One part of an output or error file, and the rows it answers.
#[derive(Debug, Clone)]
pub struct RecordedPart {
    /// The bytes.
    pub part: FilePart,
    /// How many lines it has.
    pub lines: u64,
    /// The numbers of the rows that have a line in it.
    pub rows: RoaringBitmap,
}

/// Whether a flush was recorded.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Recorded {
    /// All of it, and durably.
    Applied,
    /// Nothing of it, because these leases are not held any more. Leave their rows out and try again.
    LostLeases(Vec<LeaseHold>),
    /// Nothing of it, because it contradicts the ledger, which only a fault of this program can do. Leave the rows of
    /// the leases out that are named, and try again; the leases are to be read again from the ledger.
    Violations(Vec<Violation>),
}

/// How the outcomes of some leases contradict the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The batch.
    pub batch: BatchId,
    /// The leases at fault, as they were held.
    pub leases: Vec<LeaseHold>,
    /// What is wrong.
    pub what: Contradiction,
}

/// What is wrong with outcomes that contradict the ledger.
#[derive(Debug, Clone, PartialEq)]
pub enum Contradiction {
    /// The parts do not answer exactly the rows that the leases ran, each once.
    RowsDiffer,
    /// These rows have their line already.
    RecordedAlready(RoaringBitmap),
    /// More rows are recorded under a lease than it owes.
    MoreThanOwed,
    /// The counters of the batch would pass its total.
    CountersPassTotal,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RowsDiffer => f.write_str("the lines do not answer exactly the rows that were run"),
            Self::RecordedAlready(rows) => {
                let first = rows.min().unwrap_or_default();
                write!(f, "{} rows have their line already, row {first} first", rows.len())
            }
            Self::MoreThanOwed => f.write_str("more rows are recorded under the lease than it owes"),
            Self::CountersPassTotal => f.write_str("the counters would pass the batch's total"),
        }
    }
}

impl Flush {
    /// The blob that tells whether the flush has been recorded.
    pub(in crate::storage) fn first_blob(&self) -> Option<BlobId> {
        self.batches.values().find_map(|batch| batch.parts().next()).map(|part| part.part.blob)
    }
}

impl BatchFlush {
    /// The parts that are to be appended, at most one for each file.
    pub fn parts(&self) -> impl Iterator<Item = &RecordedPart> {
        [&self.output, &self.error].into_iter().flatten()
    }

    /// The rows that have a line in one of the parts.
    pub(in crate::storage) fn rows(&self) -> RoaringBitmap {
        self.parts().fold(RoaringBitmap::new(), |rows, part| rows | &part.rows)
    }

    /// Whether the parts answer exactly the rows that the leases ran, and each row is in one part and under one lease.
    pub(in crate::storage) fn is_consistent(&self) -> bool {
        let lines: u64 = self.parts().map(|part| part.lines).sum();
        let ran: u64 = self.leases.values().map(RoaringBitmap::len).sum();
        let rows = self.rows();
        let under_leases = self.leases.values().fold(RoaringBitmap::new(), |all, rows| all | rows);
        lines == rows.len() && ran == rows.len() && rows == under_leases
    }

    /// The leases that ran any of these rows.
    pub(in crate::storage) fn leases_of(&self, rows: &RoaringBitmap) -> Vec<LeaseHold> {
        self.leases.iter().filter(|(_, ran)| !ran.is_disjoint(rows)).map(|(lease, _)| *lease).collect()
    }
}

/// Where the line of a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPart {
    /// The part that has it.
    pub part: FilePart,
    /// Whether that is of the output file, and not of the error file.
    pub succeeded: bool,
}

/// The parts of both result files of a batch, in order, as far as they are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultParts {
    /// Of the output file.
    pub output: Vec<FilePart>,
    /// Of the error file.
    pub errors: Vec<FilePart>,
}

/// How a batch ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The batch.
    pub id: BatchId,
    /// The status it was fenced in, `finalizing` or `cancelling`; if it has changed, nothing is done.
    pub from: BatchStatus,
    /// The lines of the rows that never ran; none if all have.
    pub never_ran: Option<RecordedPart>,
    /// The lanes that were never opened, of a batch that was cancelled before its admission. Their rows, which have
    /// lines in `never_ran`, are added to the batch's total.
    pub never_admitted: Vec<NewLane>,
    /// Whether those rows count as failed and the batch as completed, because neither a cancel nor the window is why
    /// they never ran.
    pub counts_as_failed: bool,
    /// When its files vanish.
    pub files_expire_at: Option<Timestamp>,
}

impl Ending {
    /// The terminal status of the batch.
    pub(in crate::storage) fn status(&self) -> BatchStatus {
        self.from.ended(self.never_ran.is_some(), self.counts_as_failed)
    }

    /// Rows that never ran and count as failed.
    pub(in crate::storage) fn failed(&self) -> u64 {
        self.never_ran.as_ref().filter(|_| self.counts_as_failed).map_or(0, |part| part.rows.len())
    }
}

/// The ledger: which rows of a batch have their line, and the counters that go with it.
#[async_trait]
pub trait Ledger {
    /// Records outcomes in one transaction: parts, row numbers, counters, leases and attempts. The transaction that
    /// records the last row of a batch moves it to `finalizing`. Recording the same flush again does nothing.
    ///
    /// The ledger defends itself: what would give a row a second line, or a counter a value beyond the batch's total,
    /// is refused whole.
    async fn record(&self, flush: &Flush, now: Timestamp) -> Result<Recorded>;

    /// The attempts of a row in a batch of the owner; `None` if it has no result yet, was not tried again, or they were
    /// forgotten ([`forget_steps`](super::StepStore::forget_steps)).
    async fn attempts(&self, owner: &Owner, row: RequestId) -> Result<Option<RowAttempts>>;

    /// The rows of a batch that have their line.
    async fn recorded_rows(&self, id: BatchId) -> Result<RoaringBitmap>;

    /// Where the line of a row in a batch of the owner is; `None` if it has none yet, or if its file was deleted or has
    /// expired.
    async fn part_of_row(&self, owner: &Owner, row: RequestId, now: Timestamp) -> Result<Option<RowPart>>;

    /// The parts of the result files of a batch of the owner, while it runs and after. None of a file that was deleted
    /// or has expired.
    async fn result_parts(&self, owner: &Owner, id: BatchId, now: Timestamp) -> Result<ResultParts>;

    /// Sets the counters of a batch that runs to what its ledger has, which they never differ from unless something is
    /// broken. A batch whose every row is recorded moves to `finalizing`.
    async fn recount(&self, id: BatchId, now: Timestamp) -> Result<()>;

    /// Ends all leases of a batch in `finalizing` or `cancelling`, so that nothing more can be recorded for it, and
    /// returns its counts, by its ledger, as they then stay. `None` while a living daemon holds one, or if the batch
    /// has ended.
    async fn fence(&self, id: BatchId) -> Result<Option<Counts>>;

    /// Ends a fenced batch: adds the lines of the rows that never ran, publishes its files and makes its status
    /// terminal. False if somebody else has ended it.
    async fn finish(&self, ending: &Ending, now: Timestamp) -> Result<bool>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::LeaseId;

    fn part(rows: &[u32]) -> Option<RecordedPart> {
        let part = FilePart { blob: BlobId::new(), bytes: 1 };
        (!rows.is_empty()).then(|| RecordedPart {
            part,
            lines: rows.len() as u64,
            rows: rows.iter().copied().collect(),
        })
    }

    #[test]
    fn the_lines_must_be_those_of_the_rows_that_were_run() {
        // Rows with a line in the output file, in the error file, and of two runs: whether they go together.
        type Rows = &'static [u32];
        let cases: [(Rows, Rows, Rows, Rows, bool); 8] = [
            (&[0, 1], &[2], &[0, 1, 2], &[], true),
            (&[0, 1], &[2], &[0, 2], &[1], true),
            (&[0, 1], &[1], &[0, 1], &[], false),
            (&[0, 1, 1], &[], &[0, 1], &[], false),
            (&[0, 1], &[], &[0, 1], &[1], false),
            (&[0, 1], &[], &[0], &[], false),
            (&[0], &[], &[0, 1], &[], false),
            (&[0, 1], &[], &[0, 2], &[], false),
        ];
        for (output, error, first, second, expected) in cases {
            let id = LeaseId::new();
            let runs = [(1, first), (2, second)].map(|(token, rows)| {
                let rows: RoaringBitmap = rows.iter().copied().collect();
                (LeaseHold { id, token }, rows)
            });
            let flush = BatchFlush {
                output: part(output),
                error: part(error),
                leases: runs.into_iter().filter(|(_, rows)| !rows.is_empty()).collect(),
                ..BatchFlush::default()
            };

            assert_eq!(flush.is_consistent(), expected, "{output:?} {error:?} {first:?} {second:?}");
        }
    }
}

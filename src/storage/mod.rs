//! What is kept: metadata in SQL ([`sql`]), bytes in a blob store ([`blobs`]).
//!
//! [`Storage`] is the contract both databases keep; `tests/storage` holds them to it. Answers that a caller must act
//! on are values (`bool`, `Option`, [`Recorded`]); a [`StorageError`] means that it could not be found out.

pub mod blobs;
mod flush;
pub mod group_commit;
pub mod results;
pub mod rows;
pub mod sql;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
pub use flush::{BatchFlush, Contradiction, Flush, Recorded, RecordedPart, Violation};
use roaring::RoaringBitmap;

use crate::domain::batch::{Batch, BatchError, BatchStatus, Counts, NewBatch};
use crate::domain::endpoint::Endpoint;
use crate::domain::file::{File, FilePart, Purpose};
use crate::domain::ids::{BatchId, BlobId, DaemonId, FileId, RequestId};
use crate::domain::lease::{DaemonPulse, FencedLease, LapsedLease, Lease, OpenLane};
use crate::domain::page::{Page, PageRequest};
use crate::domain::report::{NewLane, Report};
use crate::domain::response::Step;
use crate::domain::time::Timestamp;

/// The result of asking the storage for something.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// Why the storage could not do or find out what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No answer in time. What was asked may have happened all the same.
    #[error("the database did not answer within {0:?}")]
    Timeout(Duration),
    /// The database cannot be reached. Asking again later can help.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// The database's disk is full. Asking again helps once there is room.
    #[error("the database's disk is full: make room, and work goes on by itself")]
    Full(#[source] sqlx::Error),
    /// A file of the embedded database is not where it was opened: what is written to it would be lost.
    #[error(
        "{} is not the file that was opened: the data directory was deleted, moved away or replaced. Bring it back, or \
         start again", path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// Why it cannot be looked at, if it cannot.
        source: Option<std::io::Error>,
    },
    /// A row that no version of this program wrote.
    #[error("{table}.{column} of {id} cannot be read")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The id of the row.
        id: String,
    },
    /// The database was migrated by a newer version of this program.
    #[error(
        "the database's schema has version {found}; this program knows versions up to {known}: use a newer program"
    )]
    TooNew {
        /// The version of the database's schema.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("the database could not be migrated")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// Anything else: a fault of this program or of the database.
    #[error("the database refused a statement")]
    Internal(#[source] sqlx::Error),
}

impl StorageError {
    /// Whether the database is the cause, and not what it was asked about: whatever else is asked fails alike.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Unavailable(_)
            | Self::Full(_)
            | Self::Gone { .. }
            | Self::TooNew { .. }
            | Self::Migration(_) => true,
            Self::Corrupt { .. } | Self::Internal(_) => false,
        }
    }
}

/// Why something that is kept could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] blobs::BlobError),
}

/// A file to be kept, with its bytes already in the blob store.
#[derive(Debug, Clone)]
pub struct NewFile {
    /// The file as its owner will see it.
    pub file: File,
    /// Its bytes.
    pub parts: Vec<FilePart>,
    /// What intake made of a batch input file.
    pub indexed: Option<Indexed>,
}

/// What intake made of a batch input file.
#[derive(Debug, Clone)]
pub struct Indexed {
    /// The blob of the row index.
    pub index: BlobId,
    /// What was found.
    pub report: Report,
}

/// A page of what waits for a duty, in the order of due times and ids.
#[derive(Debug)]
pub struct WorkPage<Id, T> {
    /// The items with their ids. One whose row cannot be read has an error of its own, and spoils none beside it.
    pub items: Vec<(Id, Result<T>)>,
    /// What the next page is asked for by; `None` if this is the last one.
    pub next: Option<(Timestamp, Id)>,
}

/// Files and their parts.
#[async_trait]
pub trait FileStore {
    /// Keeps a file. It can be read as soon as this returns.
    async fn create_file(&self, new: &NewFile) -> Result<()>;

    /// A file that is neither deleted nor expired.
    async fn file(&self, id: FileId, now: Timestamp) -> Result<Option<File>>;

    /// Files that are neither deleted nor expired, by creation time. Rows that cannot be read are left out, as if they
    /// were not there.
    async fn files(&self, page: &PageRequest<FileId>, purpose: Option<Purpose>, now: Timestamp) -> Result<Page<File>>;

    /// The parts of a file in order, deleted or not.
    async fn file_parts(&self, id: FileId) -> Result<Vec<FilePart>>;

    /// What intake found in a batch input file; `None` for other files.
    async fn file_report(&self, id: FileId) -> Result<Option<Report>>;

    /// Deletes a file for its owner. False if it was not there. Batches that run it go on.
    async fn delete_file(&self, id: FileId, now: Timestamp) -> Result<bool>;
}

/// Batches, from creation until nothing is left to do for them.
#[async_trait]
pub trait BatchStore {
    /// Creates a batch, or returns the one that was made with the same idempotency key.
    async fn create_batch(&self, new: &NewBatch, now: Timestamp) -> Result<Batch>;

    /// A batch.
    async fn batch(&self, id: BatchId) -> Result<Option<Batch>>;

    /// Batches by creation time. Rows that cannot be read are left out, as if they were not there.
    async fn batches(&self, page: &PageRequest<BatchId>) -> Result<Page<Batch>>;

    /// Calls a batch off, if it has not ended and is not called off already. Returns it as it is then.
    async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<Option<Batch>>;

    /// Batches that wait for validation, oldest deadline first, from behind `after`.
    async fn batches_to_admit(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>>;

    /// Opens a batch's lanes and moves it to `in_progress`. False if it was not waiting for validation.
    async fn admit_batch(&self, id: BatchId, lanes: &[NewLane], now: Timestamp) -> Result<bool>;

    /// Fails a batch that waits for validation. False if it was not waiting.
    async fn refuse_batch(&self, id: BatchId, errors: &[BatchError], now: Timestamp) -> Result<bool>;

    /// Moves batches in progress whose window has closed to `finalizing`, up to `limit` of them. Returns how many.
    async fn expire_batches(&self, now: Timestamp, limit: u32) -> Result<u64>;

    /// Moves a batch in progress to `finalizing` although its window has not closed, because its rows cannot be read any
    /// more. False if it was not in progress.
    async fn give_up_batch(&self, id: BatchId, now: Timestamp) -> Result<bool>;

    /// Batches in `finalizing` or `cancelling`, oldest deadline first, from behind `after`.
    async fn batches_to_finish(
        &self,
        after: Option<(Timestamp, BatchId)>,
        limit: u32,
    ) -> Result<WorkPage<BatchId, Batch>>;
}

/// A lease as the heartbeat finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    /// The lease, and the token it is held with.
    pub lease: FencedLease,
    /// Whether its batch is still in progress; if not, its rows are not to be run.
    pub runs: bool,
}

/// What a heartbeat finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The leases that are the daemon's own.
    pub leases: Vec<HeldLease>,
    /// Every daemon that is not known to be dead, this one included, in the order of their ids.
    pub daemons: Vec<DaemonPulse>,
}

/// What is needed to run rows of a batch.
#[derive(Debug, Clone)]
pub struct BatchInput {
    /// The endpoint of the rows.
    pub endpoint: Endpoint,
    /// The blob of the input file's row index.
    pub index: BlobId,
    /// The parts of the input file.
    pub parts: Vec<FilePart>,
    /// The batch's metadata.
    pub metadata: Arc<BTreeMap<String, String>>,
}

/// Lanes, leases and daemons: who runs what.
///
/// No clock is read here. A daemon counts as alive until another has seen it silent for its lifetime, on a monotonic clock
/// of its own, and declares it dead: no step of a wall clock, of a daemon's host or of the database's, ends a lease.
#[async_trait]
pub trait LeaseStore {
    /// Says that a daemon lives, and that it is dead once it has been silent for `lifetime`. Returns which leases are its own.
    async fn beat(&self, daemon: DaemonId, lifetime: Duration) -> Result<Beat>;

    /// Declares a daemon dead that has not beaten since it was seen like this: its leases can be taken over. False if it has
    /// beaten since. A daemon that was declared dead by mistake lives again with its next beat.
    async fn declare_dead(&self, silent: DaemonPulse) -> Result<bool>;

    /// Says that a daemon works no more. What it still holds can be taken over at once.
    async fn leave(&self, daemon: DaemonId) -> Result<()>;

    /// Lanes of batches in progress with unclaimed rows: of each model up to `of_a_model`, those whose windows close first, and
    /// the first lane of every model before the second of any. So no model's lanes hide another's.
    async fn open_lanes(&self, of_a_model: u32, limit: u32) -> Result<Vec<OpenLane>>;

    /// Claims the next `rows` rows of a lane. `None` if the lane's cursor is not where `lane` has it, or the batch is
    /// not in progress any more: look again.
    async fn claim(&self, lane: &OpenLane, rows: u32, daemon: DaemonId) -> Result<Option<Lease>>;

    /// Leases of batches in progress that `daemon` may take over: those whose daemon is dead or gave them back. Never its
    /// own, which it runs, or gives back with its next heartbeats. In the order of [`LeaseStore::open_lanes`].
    async fn lapsed_leases(&self, daemon: DaemonId, of_a_model: u32, limit: u32) -> Result<Vec<LapsedLease>>;

    /// Takes a lapsed lease over. From then on its former holder can record nothing under it, so its rows without an
    /// entry in the ledger are the new holder's. `None` if somebody was faster, or if the lease is the daemon's own.
    async fn take_over(&self, lapsed: FencedLease, daemon: DaemonId) -> Result<Option<Lease>>;

    /// Gives a lease back, for others to take over at once. Nothing happens if it is lost already.
    async fn give_back(&self, lease: FencedLease) -> Result<()>;

    /// Sets how many rows a lease owes to what its holder has found in the ledger; one that owes none ends. Nothing happens
    /// if it is lost already.
    async fn correct_owed(&self, lease: FencedLease, owed: u32) -> Result<()>;

    /// Notes that the first owed row of a lease is about to run alone, and returns how often it has, this time included.
    /// Recording it, or giving the lease back, sets the count back. `None` if the lease is lost.
    async fn try_alone(&self, lease: FencedLease) -> Result<Option<u32>>;

    /// Whether a daemon that lives has the row at this position of the index. False once the row is recorded and its
    /// lease has ended.
    async fn is_held(&self, batch: BatchId, position: u32) -> Result<bool>;

    /// What is needed to run the rows of a batch; `None` if the batch or its input is not there.
    async fn batch_input(&self, id: BatchId) -> Result<Option<BatchInput>>;
}

/// Where the line of a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPart {
    /// The part that has it.
    pub part: FilePart,
    /// Whether that is of the output file, and not of the error file.
    pub succeeded: bool,
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
    /// Whether those rows count as failed and the batch as completed, because neither a cancel nor the window is why
    /// they never ran.
    pub counts_as_failed: bool,
    /// When its files vanish.
    pub files_expire_at: Option<Timestamp>,
}

/// The ledger: which rows of a batch have their line, and the counters that go with it.
#[async_trait]
pub trait Ledger {
    /// Records outcomes in one transaction: parts, row numbers, counters and leases. The transaction that records the
    /// last row of a batch moves it to `finalizing`. Recording the same flush again does nothing.
    ///
    /// The ledger defends itself: what would give a row a second line, or a counter a value beyond the batch's total, is
    /// refused whole.
    async fn record(&self, flush: &Flush, now: Timestamp) -> Result<Recorded>;

    /// The rows of a batch that have their line.
    async fn recorded_rows(&self, id: BatchId) -> Result<RoaringBitmap>;

    /// Where the line of a row is; `None` if it has none yet, or if its file was deleted or has expired.
    async fn part_of_row(&self, row: RequestId, now: Timestamp) -> Result<Option<RowPart>>;

    /// Sets the counters of a batch that runs to what its ledger has, which they never differ from unless something is
    /// broken. A batch whose every row is recorded moves to `finalizing`.
    async fn recount(&self, id: BatchId, now: Timestamp) -> Result<()>;

    /// Ends all leases of a batch in `finalizing` or `cancelling`, so that nothing more can be recorded for it, and
    /// returns its counts, by its ledger, as they then stay. `None` while a living daemon holds one, or if the batch has ended.
    async fn fence(&self, id: BatchId) -> Result<Option<Counts>>;

    /// Ends a fenced batch: adds the lines of the rows that never ran, publishes its files and makes its status
    /// terminal. False if somebody else has ended it.
    async fn finish(&self, ending: &Ending, now: Timestamp) -> Result<bool>;
}

/// A part, and how it came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TieredPart {
    /// Its number within the file; they rise, with gaps where parts were merged.
    pub no: i64,
    /// The bytes.
    pub part: FilePart,
    /// 0 as recorded; one more than the parts that were merged into it.
    pub tier: i64,
}

/// Keeping files in few parts, and letting go of what nobody can see any more. Everything here works in bounded steps
/// and may be done by several replicas at once.
#[async_trait]
pub trait Upkeep {
    /// The parts of a file in order, with their tiers.
    async fn tiered_parts(&self, id: FileId) -> Result<Vec<TieredPart>>;

    /// Replaces neighbouring parts of a file by one with the same bytes, and retires their blobs. False, and nothing is
    /// done, if the parts are not there any more as they were.
    async fn merge_parts(&self, id: FileId, parts: &[TieredPart], merged: FilePart, now: Timestamp) -> Result<bool>;

    /// Forgets up to `limit` files that were deleted or have expired an hour ago or longer, and retires their blobs.
    /// Those that a batch still runs are left for later. Returns how many were looked at.
    async fn retire_files(&self, now: Timestamp, limit: u32) -> Result<u32>;

    /// Retired blobs that nobody can be reading any more, oldest first, from behind `after`.
    async fn retired_blobs(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, BlobId)>,
        limit: u32,
    ) -> Result<WorkPage<BlobId, ()>>;

    /// Forgets retired blobs, which are gone from the blob store.
    async fn forget_blobs(&self, blobs: &[BlobId]) -> Result<()>;

    /// Those of `blobs` that nothing refers to and that were not retired.
    async fn orphans(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>>;
}

/// A step as it stands, written by whoever holds the lease of its row.
#[derive(Debug, Clone)]
pub struct StepWrite {
    /// The row.
    pub row: RequestId,
    /// The lease in whose name it is written, and the token it is held with.
    pub lease: FencedLease,
    /// The step.
    pub step: Step,
}

/// The steps of rows that take more than one call.
#[async_trait]
pub trait StepStore {
    /// Keeps steps as they stand, in their order and in one transaction. A step that has ended well stays as it is. Returns
    /// the leases that are not held with their token any more: nothing is kept in their name.
    async fn record_steps(&self, writes: &[StepWrite]) -> Result<BTreeSet<FencedLease>>;

    /// The steps of a row, in the order in which they were begun.
    async fn steps(&self, row: RequestId) -> Result<Vec<Step>>;

    /// Forgets the steps of up to `rows` rows of a batch that ended at `ended_before` or earlier. Returns how many
    /// steps there were; none if there is no such batch.
    async fn forget_steps(&self, ended_before: Timestamp, rows: u32) -> Result<u64>;
}

/// All that the program keeps in its database.
#[async_trait]
pub trait Storage: FileStore + BatchStore + LeaseStore + Ledger + StepStore + Upkeep + Send + Sync + 'static {
    /// Whether the database answers.
    async fn check(&self) -> Result<()>;

    /// Whether the database names any blob.
    async fn names_blobs(&self) -> Result<bool>;

    /// The id of the blob store that belongs to this database: `candidate`, unless it has one already.
    async fn blob_store_id(&self, candidate: BlobId) -> Result<BlobId>;
}

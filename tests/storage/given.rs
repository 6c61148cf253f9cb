//! What the tests start from: storages, files, batches in every status, and flushes.

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use batchwright::domain::batch::{Batch, BatchStatus, NewBatch, Window};
use batchwright::domain::endpoint::Endpoint;
use batchwright::domain::file::{File, FilePart, Purpose};
use batchwright::domain::ids::{BatchId, BlobId, DaemonId, FileId};
use batchwright::domain::lease::{Lease, LeaseHold, OpenLane};
use batchwright::domain::owner::Owner;
use batchwright::domain::page::{Order, PageRequest};
use batchwright::domain::report::{NewLane, Report};
use batchwright::domain::time::Timestamp;
use batchwright::domain::usage::Usage;
use batchwright::storage::sql::{Db, SqlStorage};
use batchwright::storage::{
    BatchStore as _, Ending, Flush, Indexed, LeaseStore as _, Ledger as _, NewFile, Recorded, RecordedPart, Result,
    TieredPart, Upkeep as _, WorkPage,
};
use roaring::RoaringBitmap;
use tempfile::TempDir;

use crate::databases::postgres_url;

/// The owner of what the tests make.
pub static OWNER: LazyLock<Owner> = LazyLock::new(Owner::default);

/// When the tests begin.
pub const START: Timestamp = Timestamp(1_750_000_000_000);
/// The window of every batch.
pub const WINDOW: Duration = Duration::from_hours(24);
/// What each completed row uses.
pub const USAGE_OF_A_ROW: Usage =
    Usage { input_tokens: 50, cached_tokens: 40, output_tokens: 30, reasoning_tokens: 20, total_tokens: 80 };
/// The size of a line of an output file.
pub const OUTPUT_LINE: u64 = 100;
/// The size of a line of an error file.
pub const ERROR_LINE: u64 = 10;

pub const EVERY_STATUS: [BatchStatus; 8] = [
    BatchStatus::Validating,
    BatchStatus::Failed,
    BatchStatus::InProgress,
    BatchStatus::Finalizing,
    BatchStatus::Completed,
    BatchStatus::Expired,
    BatchStatus::Cancelling,
    BatchStatus::Cancelled,
];

/// So many seconds after the tests begin.
pub fn after(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

/// Which database a storage uses, and where it is.
#[derive(Debug, Clone)]
pub enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    pub async fn open(&self) -> Result<SqlStorage> {
        SqlStorage::open(self.database().await?).await
    }

    /// As an operator's command opens it beside a service.
    pub async fn open_beside(&self) -> Result<Option<SqlStorage>> {
        SqlStorage::beside(self.database().await?).await
    }

    async fn database(&self) -> Result<Db> {
        match self {
            Self::Sqlite(path) => Db::open_sqlite(path).await,
            Self::Postgres(url) => Db::open_postgres(url, 16).await,
        }
    }
}

/// A storage of its own for one test.
pub struct TestStorage {
    storage: SqlStorage,
    pub place: Place,
    /// Deleted when the test ends.
    _directory: Option<TempDir>,
}

impl Deref for TestStorage {
    type Target = SqlStorage;

    fn deref(&self) -> &SqlStorage {
        &self.storage
    }
}

impl TestStorage {
    pub async fn sqlite() -> Self {
        let directory = TempDir::new().expect("a directory can be made");
        let place = Place::Sqlite(directory.path().join("test.db"));
        Self::open(place, Some(directory)).await
    }

    pub async fn postgres() -> Self {
        Self::open(Place::Postgres(postgres_url().await), None).await
    }

    /// One on SQLite whose ledger does not defend itself.
    #[cfg(feature = "failpoints")]
    pub async fn without_guard() -> Self {
        let mut storage = Self::sqlite().await;
        storage.storage = storage.storage.without_guard();
        storage
    }

    async fn open(place: Place, directory: Option<TempDir>) -> Self {
        let storage = place.open().await.expect("a fresh database can be opened");
        Self { storage, place, _directory: directory }
    }

    /// A batch as it is now.
    pub async fn now(&self, id: BatchId) -> Result<Batch> {
        Ok(self.batch(&OWNER, id).await?.expect("the batch is there"))
    }

    /// The parts of a file in order, also of one that is not published yet.
    pub async fn parts_of(&self, id: FileId) -> Result<Vec<FilePart>> {
        Ok(self.tiered_parts(id).await?.into_iter().map(|part| part.part).collect())
    }

    /// Batches that wait for validation, the first `limit`.
    pub async fn to_admit(&self, limit: u32) -> Result<Vec<Batch>> {
        read(self.batches_to_admit(None, limit).await?)
    }

    /// Batches that wait for their end, the first `limit`.
    pub async fn to_finish(&self, limit: u32) -> Result<Vec<Batch>> {
        read(self.batches_to_finish(None, limit).await?)
    }

    /// Blobs that may be deleted, the first `limit`.
    pub async fn retired(&self, now: Timestamp, limit: u32) -> Result<Vec<BlobId>> {
        Ok(self.retired_blobs(now, None, limit).await?.items.into_iter().map(|(blob, _)| blob).collect())
    }

    /// A batch, which is new or has the same key.
    pub async fn created(&self, owner: &Owner, new: &NewBatch, at: Timestamp) -> Result<Batch> {
        Ok(self.create_batch(owner, new, at).await?.expect("its key was used for nothing else"))
    }

    /// A batch that waits for validation.
    pub async fn validating(&self) -> Result<Batch> {
        self.created(&OWNER, &new_batch(), START).await
    }

    /// A batch in progress, with a lane for each of `rows`.
    pub async fn running(&self, rows: &[u32]) -> Result<Batch> {
        let batch = self.validating().await?;
        assert!(self.admit_batch(batch.id, &lanes(rows), START).await?);
        self.now(batch.id).await
    }

    /// A batch of three rows in `status`. Others in progress may lose their window over it.
    pub async fn batch_in(&self, status: BatchStatus) -> Result<Batch> {
        self.made_in(status, &new_batch()).await
    }

    /// The same of a batch that is made as `new` says.
    pub async fn made_in(&self, status: BatchStatus, new: &NewBatch) -> Result<Batch> {
        let id = self.created(&OWNER, new, START).await?.id;
        if !matches!(status, BatchStatus::Validating | BatchStatus::Failed) {
            assert!(self.admit_batch(id, &lanes(&[3]), START).await?);
        }
        match status {
            BatchStatus::Validating | BatchStatus::InProgress => {}
            BatchStatus::Failed => assert!(self.refuse_batch(id, &[], after(1)).await?),
            BatchStatus::Finalizing | BatchStatus::Expired => {
                self.expire_batches(START.plus(WINDOW), 100).await?;
            }
            BatchStatus::Completed => {
                let lease = self.claimed(id, 3, DaemonId::new()).await?;
                assert_eq!(self.record(&flush(&[(&lease, 0..3, 0..0)]), after(1)).await?, Recorded::Applied);
            }
            BatchStatus::Cancelling | BatchStatus::Cancelled => {
                self.cancel_batch(&OWNER, id, after(1)).await?;
            }
        }
        if status.is_terminal() && status != BatchStatus::Failed {
            self.fence(id).await?.expect("no daemon lives");
            let never_ran = if status == BatchStatus::Completed { 0..0 } else { 0..3 };
            assert!(self.finish(&ending(&self.now(id).await?, never_ran), after(2)).await?);
        }
        let batch = self.now(id).await?;
        assert_eq!(batch.status, status);
        Ok(batch)
    }

    /// The first lane of a batch that has unclaimed rows.
    pub async fn open_lane(&self, id: BatchId) -> Result<OpenLane> {
        let lanes = self.open_lanes(1000, 1000).await?;
        Ok(lanes.into_iter().find(|lane| lane.batch_id == id).expect("the batch has an open lane"))
    }

    /// The next rows of a batch, claimed.
    pub async fn claimed(&self, id: BatchId, rows: u32, daemon: DaemonId) -> Result<Lease> {
        let lane = self.open_lane(id).await?;
        Ok(self.claim(&lane, rows, daemon).await?.expect("nobody else claims"))
    }

    /// A daemon that lives as long as any test.
    pub async fn living_daemon(&self) -> Result<DaemonId> {
        let daemon = DaemonId::new();
        self.beat(daemon, Duration::from_hours(1)).await?;
        Ok(daemon)
    }

    /// A living daemon, and its lease of the two rows of a batch.
    pub async fn held_lease(&self) -> Result<(DaemonId, Lease)> {
        let daemon = self.living_daemon().await?;
        let batch = self.running(&[2]).await?;
        let lease = self.claimed(batch.id, 2, daemon).await?;
        Ok((daemon, lease))
    }

    /// A daemon is silent for so long that another declares it dead.
    pub async fn let_die(&self, daemon: DaemonId) -> Result<()> {
        let daemons = self.beat(DaemonId::new(), Duration::ZERO).await?.daemons;
        for pulse in daemons.into_iter().filter(|pulse| pulse.id == daemon || pulse.lifetime.is_zero()) {
            assert!(self.declare_dead(pulse).await?, "it has not beaten meanwhile");
        }
        Ok(())
    }

    /// The leases that a daemon which holds none could take over.
    pub async fn lapsed(&self, limit: u32) -> Result<Vec<LeaseHold>> {
        self.lapsed_for(DaemonId::new(), limit).await
    }

    /// The leases that this daemon could take over.
    pub async fn lapsed_for(&self, daemon: DaemonId, limit: u32) -> Result<Vec<LeaseHold>> {
        let lapsed = self.lapsed_leases(daemon, limit, limit).await?;
        Ok(lapsed.into_iter().map(|lapsed| lapsed.lease).collect())
    }
}

/// The items of a page, all of which can be read.
fn read<Id, T>(page: WorkPage<Id, T>) -> Result<Vec<T>> {
    page.items.into_iter().map(|(_, item)| item).collect()
}

pub fn part(bytes: u64) -> FilePart {
    FilePart { blob: BlobId::new(), bytes }
}

/// An uploaded file of two parts.
pub fn new_file(purpose: Purpose, created_at: Timestamp) -> NewFile {
    let file =
        File { id: FileId::new(), purpose, filename: "rows.jsonl".to_owned(), bytes: 30, created_at, expires_at: None };
    NewFile { file, parts: vec![part(10), part(20)], indexed: None, key: None }
}

/// A file that a batch can run.
pub fn indexed_file() -> NewFile {
    let indexed = Indexed { index: BlobId::new(), report: Report::default() };
    NewFile { indexed: Some(indexed), ..new_file(Purpose::Batch, START) }
}

/// What parts become when they are merged.
pub fn merged(parts: &[TieredPart]) -> FilePart {
    part(parts.iter().map(|part| part.part.bytes).sum())
}

pub fn new_batch() -> NewBatch {
    NewBatch {
        input_file_id: FileId::new().to_string(),
        endpoint: Endpoint::ChatCompletions.into(),
        window: Window { text: "24h".to_owned(), length: WINDOW },
        metadata: None,
        output_expires_after: None,
        idempotency_key: None,
        canary: None,
        retry: None,
        webhook: None,
        is_message_batch: false,
    }
}

/// A lane for each of `rows`, one after the other, to the models `model-0`, `model-1` and so on.
pub fn lanes(rows: &[u32]) -> Vec<NewLane> {
    let mut first = 0;
    let lane = |(no, rows): (usize, &u32)| {
        let lane = NewLane { model: format!("model-{no}"), first, last: first + rows };
        first = lane.last;
        lane
    };
    rows.iter().enumerate().map(lane).collect()
}

/// The outcomes of rows that ran under leases: of each, those that completed and those that failed.
pub fn flush(ran: &[(&Lease, Range<u32>, Range<u32>)]) -> Flush {
    let mut flush = Flush::default();
    for (lease, completed, failed) in ran {
        let batch = flush.batches.entry(lease.batch_id).or_default();
        for row in completed.clone() {
            add_row(&mut batch.output, row, OUTPUT_LINE);
            batch.usage.add(USAGE_OF_A_ROW);
        }
        for row in failed.clone() {
            add_row(&mut batch.error, row, ERROR_LINE);
        }
        batch.leases.insert(lease.hold(), completed.clone().chain(failed.clone()).collect());
    }
    flush
}

/// Adds the line of a row to a part, which is made if it is not there.
pub fn add_row(part: &mut Option<RecordedPart>, row: u32, bytes: u64) {
    let part = part.get_or_insert_with(|| RecordedPart { part: self::part(0), lines: 0, rows: RoaringBitmap::new() });
    part.rows.insert(row);
    part.lines += 1;
    part.part.bytes += bytes;
}

/// The end of a batch whose rows in `never_ran` have no line.
pub fn ending(batch: &Batch, never_ran: impl IntoIterator<Item = u32>) -> Ending {
    let mut part = None;
    for row in never_ran {
        add_row(&mut part, row, ERROR_LINE);
    }
    Ending {
        id: batch.id,
        from: batch.status,
        never_ran: part,
        never_admitted: Vec::new(),
        counts_as_failed: false,
        files_expire_at: None,
    }
}

/// All of a list on one page.
pub fn all<Id>(order: Order) -> PageRequest<Id> {
    PageRequest { after: None, limit: 100, order }
}

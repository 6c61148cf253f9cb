//! Measures the bookkeeping with ten million rows pending, in turns with a hundred thousand: no cost may depend on the
//! number.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use batchwright::actions::BatchObserver;
use batchwright::domain::batch::{NewBatch, Window};
use batchwright::domain::endpoint::Endpoint;
use batchwright::domain::ids::{BatchId, DaemonId, FileId};
use batchwright::domain::owner::Owner;
use batchwright::domain::project_limits::ProjectLimitTable;
use batchwright::domain::report::NewLane;
use batchwright::domain::time::Clock;
use batchwright::storage::sql::{Db, SqlStorage};
use batchwright::storage::{BatchStore as _, LeaseStore as _};
use sqlx::Connection as _;

use crate::databases::postgres_url;
use crate::{Result, millis, p99, row};

const BATCHES: usize = 500;
const FEW_ROWS: u32 = 200;
const MANY_ROWS: u32 = 20_000;
/// Lanes looked at for one claim, the same as in the daemon.
const LANES: u32 = 1024;
const LANES_OF_A_MODEL: u32 = 16;
/// So few that no lane runs out of rows.
const ROWS_OF_A_CLAIM: u32 = 10;
const READS: usize = 1_000;
const BEATS: usize = 300;

pub async fn scale(directory: &Path) -> Result<()> {
    let at = |name| Place::Sqlite(directory.join(name));
    compare("SQLite", at("few.db"), at("many.db")).await?;
    compare("PostgreSQL", Place::Postgres(postgres_url().await), Place::Postgres(postgres_url().await)).await
}

enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    async fn open(&self) -> Result<SqlStorage> {
        let db = match self {
            Self::Sqlite(path) => Db::open_sqlite(path).await?,
            Self::Postgres(url) => Db::open_postgres(url, 16).await?,
        };
        Ok(SqlStorage::open(db).await?)
    }

    /// The size of the database in bytes; on SQLite, its log included.
    async fn size(&self) -> Result<u64> {
        match self {
            Self::Sqlite(path) => {
                let log = path.with_extension("db-wal");
                Ok(path.metadata()?.len() + log.metadata().map_or(0, |log| log.len()))
            }
            Self::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                let size: i64 = sqlx::query_scalar("SELECT pg_database_size(current_database())")
                    .fetch_one(&mut connection)
                    .await?;
                Ok(u64::try_from(size)?)
            }
        }
    }
}

/// Batches in progress, and a daemon that claims their rows.
struct Side {
    place: Place,
    storage: SqlStorage,
    batches: Vec<BatchId>,
    daemon: DaemonId,
    claims: Vec<Duration>,
    reads: Vec<Duration>,
    observations: Vec<Duration>,
    beats: Vec<Duration>,
}

impl Side {
    async fn new(place: Place, rows: u32) -> Result<Self> {
        let storage = place.open().await?;
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            let now = Clock::System.now();
            let batch = storage.create_batch(&Owner::default(), &new_batch(), now).await?.ok_or("its key was used")?;
            let lane = NewLane { model: "m".to_owned(), first: 0, last: rows };
            storage.admit_batch(batch.id, &[lane], now).await?;
            batches.push(batch.id);
        }
        Ok(Self {
            place,
            storage,
            batches,
            daemon: DaemonId::new(),
            claims: Vec::new(),
            reads: Vec::new(),
            observations: Vec::new(),
            beats: Vec::new(),
        })
    }

    async fn beat(&mut self, leases: usize) -> Result<()> {
        let started = Instant::now();
        let beat = self.storage.beat(self.daemon, Duration::from_mins(10)).await?;
        self.beats.push(started.elapsed());
        (beat.leases.len() == leases).then_some(()).ok_or("a lease is missing".into())
    }

    async fn claim(&mut self, no: usize) -> Result<()> {
        let started = Instant::now();
        let lanes = self.storage.open_lanes(LANES_OF_A_MODEL, LANES).await?;
        let claimed = self.storage.claim(&lanes[no % lanes.len()], ROWS_OF_A_CLAIM, self.daemon).await?;
        self.claims.push(started.elapsed());
        claimed.map(drop).ok_or("nobody else claims".into())
    }

    async fn read(&mut self, no: usize) -> Result<()> {
        let started = Instant::now();
        let batch = self.storage.batch(&Owner::default(), self.batches[no % self.batches.len()]).await?;
        self.reads.push(started.elapsed());
        batch.map(drop).ok_or("a batch is missing".into())
    }

    async fn observe(&mut self, no: usize) -> Result<()> {
        let started = Instant::now();
        let (owner, id) = (Owner::default(), self.batches[no % self.batches.len()]);
        let projects = ProjectLimitTable::default();
        let observer =
            BatchObserver { storage: &self.storage, clock: &Clock::System, projects: &projects, owner: &owner };
        let observed = observer.observe(id).await?;
        self.observations.push(started.elapsed());
        observed.map(drop).ok_or("a batch is missing".into())
    }
}

fn new_batch() -> NewBatch {
    NewBatch {
        input_file_id: FileId::new().to_string(),
        endpoint: Endpoint::ChatCompletions.into(),
        window: Window { text: "24h".to_owned(), length: Duration::from_hours(24) },
        metadata: None,
        output_expires_after: None,
        idempotency_key: None,
        canary: None,
        retry: None,
        is_message_batch: false,
        webhook: None,
    }
}

async fn compare(database: &str, few: Place, many: Place) -> Result<()> {
    let mut few = Side::new(few, FEW_ROWS).await?;
    let mut many = Side::new(many, MANY_ROWS).await?;
    // In turns, so that both sides see the same load of the machine.
    for side in [&mut few, &mut many] {
        side.beat(0).await?;
        side.beats.clear();
    }
    for no in 0..BATCHES {
        few.claim(no).await?;
        many.claim(no).await?;
    }
    for no in 0..READS {
        few.read(no).await?;
        many.read(no).await?;
    }
    for no in 0..READS {
        few.observe(no).await?;
        many.observe(no).await?;
    }
    for _ in 0..BEATS {
        few.beat(BATCHES).await?;
        many.beat(BATCHES).await?;
    }
    let claims = (&mut few.claims, &mut many.claims);
    times(&format!("claim among {BATCHES} batches, p99 ({database})"), claims.0, claims.1);
    times(&format!("status read, p99 ({database})"), &mut few.reads, &mut many.reads);
    times(&format!("progress read, p99 ({database})"), &mut few.observations, &mut many.observations);
    times(&format!("heartbeat with {BATCHES} leases, p99 ({database})"), &mut few.beats, &mut many.beats);
    let (few, many) = (few.place.size().await?, many.place.size().await?);
    let kilobytes = |bytes: u64| format!("{} kB", bytes / 1000);
    compared(&format!("size of the database ({database})"), &kilobytes(few), &kilobytes(many), ratio(few, many));
    Ok(())
}

fn times(what: &str, few: &mut [Duration], many: &mut [Duration]) {
    let (few, many) = (p99(few), p99(many));
    compared(what, &millis(few), &millis(many), many.as_secs_f64() / few.as_secs_f64());
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(few: u64, many: u64) -> f64 {
    many as f64 / few as f64
}

fn compared(what: &str, few: &str, many: &str, ratio: f64) {
    let rows = |rows_of_a_batch: u32| BATCHES * rows_of_a_batch as usize;
    row(what, many, format!("{} rows pending; with {}: {few}; {ratio:.2} times", rows(MANY_ROWS), rows(FEW_ROWS)));
}

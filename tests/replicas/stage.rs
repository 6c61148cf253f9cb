//! What the replicas work on, and the proof that nothing was lost or doubled.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use batchwright::config::ServeConfig;
use batchwright::daemon::{Daemon, DaemonSettings, Recording, RunningDaemon};
use batchwright::domain::batch::BatchStatus;
use batchwright::domain::ids::{BatchId, DaemonId};
use batchwright::domain::time::Clock;
use batchwright::processor::{DefaultRequestProcessor, StepLog};
use batchwright::storage::blobs::Blobs;
use batchwright::storage::sql::{Db, SqlStorage};
use batchwright::storage::{BatchStore as _, LeaseStore as _, Ledger as _};
use batchwright::upstream::{Registry, ReqwestHttpClient, Server, ServerSettings, UpstreamSettings};
use batchwright::verify::VerifyReport;
use batchwright::wakeup::Wakeup;
use batchwright::webhooks::Webhooks;
use reqwest::header::HeaderMap;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::common::client::Client;
use crate::common::eventually::eventually;
use crate::common::process::{Process, batchwright};
use crate::databases::postgres_url;
use crate::s3;

/// The place where the replicas of one test keep their things, and the upstream they call.
pub struct Stage {
    pub simulator: Process,
    pub database: Database,
    flags: Vec<String>,
    environment: Vec<(&'static str, String)>,
    pub directory: TempDir,
}

#[derive(Clone)]
pub enum Database {
    Sqlite,
    Postgres(String),
}

/// A number from the environment, for series whose length is chosen from outside.
#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

impl Stage {
    /// One process at a time on the embedded database.
    pub async fn sqlite(simulate: &[&str]) -> Self {
        Self::new(simulate, Database::Sqlite).await
    }

    /// Any number of processes on PostgreSQL and a directory.
    pub async fn postgres(simulate: &[&str]) -> Self {
        Self::new(simulate, Database::Postgres(postgres_url().await)).await
    }

    /// Any number of processes on PostgreSQL and an S3 store.
    pub async fn postgres_and_s3(simulate: &[&str]) -> Self {
        let mut stage = Self::postgres(simulate).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        stage.environment = s3::environment(listener.local_addr().expect("it is bound")).into();
        let objects = stage.directory.path().join("objects");
        std::fs::create_dir(&objects).expect("the directory can be written");
        tokio::spawn(async move { s3::serve(listener, &objects).await });
        stage.replace_flag("--blob-url", format!("s3://{}/some/prefix", s3::BUCKET));
        stage
    }

    pub async fn new(simulate: &[&str], database: Database) -> Self {
        let simulator = Process::simulate(simulate).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut flags = vec!["--upstream".to_owned(), format!("{}/v1", simulator.base_url)];
        let path = |name| directory.path().join(name).display().to_string();
        match &database {
            Database::Sqlite => flags.extend(["--data-dir".to_owned(), path("data")]),
            Database::Postgres(url) => {
                std::fs::create_dir(path("blobs")).expect("the directory can be written");
                let blobs = format!("file://{}", path("blobs"));
                flags.extend(["--database-url".to_owned(), url.clone(), "--blob-url".to_owned(), blobs]);
            }
        }
        Self { simulator, database, flags, environment: Vec::new(), directory }
    }

    /// Gives all processes from now on another value of a flag.
    pub fn replace_flag(&mut self, flag: &str, value: String) {
        let at = self.flags.iter().position(|known| known == flag).expect("the flag is given");
        self.flags[at + 1] = value;
    }

    /// Sets a variable for all processes from now on.
    pub fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        // The last of two holds.
        self.environment.push((variable, value.into()));
    }

    pub fn variable(&self, variable: &str) -> &str {
        let known = self.environment.iter().rfind(|(name, _)| *name == variable);
        &known.expect("the variable is set").1
    }

    /// `serve` at this address, with these flags beside those of the place.
    pub fn command_at(&self, address: &str, flags: &[&str]) -> Command {
        let mut command = batchwright(&["serve", "--listen", address]);
        command.args(&self.flags).args(flags).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub async fn serve(&self, flags: &[&str]) -> Process {
        self.serve_at("127.0.0.1:0", flags).await
    }

    pub async fn serve_at(&self, address: &str, flags: &[&str]) -> Process {
        Process::start(self.command_at(address, flags)).await
    }

    /// A worker in this process, on its own clock, and what it works on.
    pub async fn daemon(&self, clock: Clock, sweep_every: Duration) -> RunningDaemon {
        let upstream = UpstreamSettings {
            base_url: format!("{}/v1", self.simulator.base_url).parse().expect("a URL"),
            headers: HeaderMap::new(),
            tls: None,
            timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            max_idle: 16,
        };
        let mut config = ServeConfig::default();
        config.webhooks.webhook_allow_private = true;
        let client = ReqwestHttpClient::new(&upstream, clock.clone()).expect("the settings are plain");
        Daemon {
            storage: Arc::new(self.storage().await),
            blobs: self.blobs(),
            registry: Registry::of(Server::over_http(client, ServerSettings::default(), clock.clone())),
            processor: Arc::new(DefaultRequestProcessor::new(clock.clone())),
            steps: StepLog::default(),
            should_retry: config.worker.should_retry(),
            clock,
            wakeup: Wakeup::new(),
            webhooks: Webhooks::new(&config.webhooks).expect("no receiver is set"),
            settings: DaemonSettings {
                projects: Arc::default(),
                max_concurrency: 16,
                global_max_concurrency: None,
                lease: Duration::from_secs(2),
                sweep_every,
                steps_retention: config.responses.steps_retention,
                retry: config.worker.retry_policy(),
                limits: config.limits.input.batch(),
                pause_after_alike: 0,
                batches_have_priorities: false,
                refuses_unknown_models: false,
                metadata_headers: Vec::new(),
                recording: Recording::Gathered,
            },
        }
        .start()
    }

    /// The blob store, if it is a directory.
    pub fn blobs(&self) -> Blobs {
        Blobs::local(&self.directory.path().join("blobs")).expect("the directory is there")
    }

    /// The counters of the upstream, once it has nothing in flight.
    pub async fn upstream_at_rest(&self) -> Value {
        eventually("the upstream to be done", async || {
            let stats = self.upstream().await;
            (stats["in_flight"] == 0).then_some(stats)
        })
        .await
    }

    /// The counters of the upstream.
    pub async fn upstream(&self) -> Value {
        self.simulator.client().get("/stats").await.ok()
    }

    /// How many different rows the upstream has been sent, and how often one was sent again.
    pub async fn sent(&self) -> (u64, u64) {
        let stats = self.upstream_at_rest().await;
        let repeats = number(&stats["repeats"]);
        (number(&stats["requests"]) - repeats, repeats)
    }

    /// How many rows of the one batch are recorded, past the program: it need not run.
    pub async fn recorded(&self) -> u64 {
        const RECORDED: &str = "SELECT CAST(COALESCE(SUM(completed + failed), 0) AS BIGINT) FROM batches";
        let recorded: i64 = match &self.database {
            Database::Sqlite => {
                let path = self.directory.path().join("data/batchwright.db");
                let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(10));
                let mut connection = SqliteConnection::connect_with(&options).await.expect("the database is there");
                sqlx::query_scalar(RECORDED).fetch_one(&mut connection).await.expect("the table is there")
            }
            Database::Postgres(url) => {
                let mut connection = PgConnection::connect(url).await.expect("the database answers");
                sqlx::query_scalar(RECORDED).fetch_one(&mut connection).await.expect("the table is there")
            }
        };
        u64::try_from(recorded).expect("a count")
    }

    /// The storage itself. On SQLite no process may run.
    pub async fn storage(&self) -> SqlStorage {
        let db = match &self.database {
            Database::Sqlite => Db::open_sqlite(&self.directory.path().join("data/batchwright.db")).await,
            Database::Postgres(url) => Db::open_postgres(url, 4).await,
        };
        SqlStorage::open(db.expect("the database answers")).await.expect("the database can be used")
    }

    /// Proves that every row of a batch that has ended has exactly one line, and that the counters are the ledger's.
    /// Ends the processes.
    pub async fn prove(&self, client: &Client, input: &str, batch: &Value, processes: Vec<Process>) {
        self.prove_all(client, input, std::slice::from_ref(batch), processes).await;
    }

    /// The same for several batches over the same input.
    pub async fn prove_all(&self, client: &Client, input: &str, batches: &[Value], processes: Vec<Process>) {
        let mut verdicts = Vec::new();
        for batch in batches {
            let verdict = client.verify(input, batch).await;
            assert!(verdict.holds(), "{verdict}\n{batch}");
            verdicts.push(verdict);
        }
        drop(processes);
        let storage = self.storage().await;
        for (batch, verdict) in batches.iter().zip(verdicts) {
            compare_with_ledger(&storage, batch, &verdict).await;
        }
        let lapsed = storage.lapsed_leases(DaemonId::new(), 10, 10).await.expect("they can be read");
        assert_eq!(lapsed, [], "no lease outlives its batch");
    }
}

async fn compare_with_ledger(storage: &SqlStorage, batch: &Value, verdict: &VerifyReport) {
    let id = BatchId::parse(batch["id"].as_str().expect("an id")).expect("the id of a batch");
    let kept = storage.any_batch(id).await.expect("it can be read").expect("it is there");
    let ledger = storage.recorded_rows(id).await.expect("it can be read");
    assert!(kept.status.is_terminal() && kept.status != BatchStatus::Failed, "{kept:?}");
    assert_eq!(ledger.len(), verdict.rows, "{kept:?}");
    assert_eq!(ledger.max(), u32::try_from(verdict.rows - 1).ok());
    assert_eq!(kept.counts.total, verdict.rows);
    assert_eq!(kept.counts.completed, verdict.output_lines);
    let never_ran = ["batch_cancelled", "batch_expired"].map(|code| verdict.by_code.get(code).copied());
    let never_ran = never_ran.into_iter().flatten().sum::<u64>();
    assert_eq!(kept.counts.failed, verdict.error_lines - never_ran);
}

/// A counter.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a count: {value}"))
}

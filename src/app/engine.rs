//! The engine: the storage, and the daemon that runs rows on it. It has no way in for clients: `Service` gives it one,
//! and `batchwright run` needs none.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, EnterGuard, Runtime};

use super::error::ServiceError;
use super::storage::{self, Opened};
use super::upstream::{Upstreams, only_server, tls_of};
use crate::config::{Certificates, ServeConfig, UnknownModels};
use crate::daemon::{Daemon, DaemonSettings, Recording, RunningDaemon};
use crate::domain::time::Clock;
use crate::processor::{AnswerSchemas, AudioFiles, EndpointProcessor, RequestProcessor, ResponsesProcessor, StepLog};
use crate::storage::Storage;
use crate::storage::blobs::Blobs;
use crate::storage::sql::SqlStorage;
use crate::telemetry::Liveness;
use crate::tools::Catalog;
use crate::upstream::{HttpClient, Registry, Server, Session};
use crate::wakeup::Wakeup;
use crate::webhooks::Webhooks;

/// How often one of the blob store's directories is swept: all of them every two hours or so.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Storage and, once it runs rows, a daemon.
pub(crate) struct BatchEngine {
    storage: Arc<SqlStorage>,
    blobs: Blobs,
    wakeup: Wakeup,
    registry: Registry,
    webhooks: Webhooks,
    daemon: Option<RunningDaemon>,
    /// The daemon's own threads: a status read does not queue behind thousands of rows.
    threads: Threads,
    /// None if an embedding program brings its own client.
    upstreams: Option<Arc<Upstreams>>,
    /// Held as long as the engine is: one process uses a data directory.
    _lock: Option<File>,
}

impl BatchEngine {
    /// An engine whose rows are run by a processor of the embedding program's own.
    pub(super) async fn embed<H, P>(settings: &ServeConfig, http: H, processor: P) -> Result<Self, ServiceError>
    where
        H: HttpClient,
        P: RequestProcessor<SqlStorage, Session> + 'static,
    {
        let server = Server::embedded(http, only_server(settings), Clock::System);
        let mut engine = Self::over(settings, Registry::of(server)).await?;
        if settings.http.role.runs_rows() {
            engine.start_daemon(settings, Recording::Gathered, processor, StepLog::default());
        }
        Ok(engine)
    }

    /// An engine that calls the inference servers of the settings. It runs no rows before [`run_rows`](Self::run_rows).
    pub(crate) async fn open(settings: &ServeConfig) -> Result<Self, ServiceError> {
        let upstreams = Upstreams::new(settings, &Clock::System)?;
        let engine = Self::over(settings, upstreams.registry().clone()).await?;
        Ok(Self { upstreams: Some(Arc::new(upstreams)), ..engine })
    }

    async fn over(settings: &ServeConfig, registry: Registry) -> Result<Self, ServiceError> {
        let webhooks = Webhooks::new(&settings.webhooks)?;
        let Opened { storage, blobs, lock } = storage::open(&settings.storage, webhooks.subscriptions()).await?;
        let (wakeup, threads) = (Wakeup::new(), Threads::new()?);
        Ok(Self { storage, blobs, wakeup, registry, webhooks, daemon: None, threads, upstreams: None, _lock: lock })
    }

    /// Runs rows from now on, of all batches that the storage has.
    pub(crate) fn run_rows(&mut self, settings: &ServeConfig, recording: Recording) -> Result<(), ServiceError> {
        let (steps, ca) = (StepLog::default(), settings.upstream.upstream_ca.as_ref());
        let processor = endpoint_processor(settings, ca, &self.blobs, steps.clone())?;
        self.start_daemon(settings, recording, processor, steps);
        Ok(())
    }

    fn start_daemon<P>(&mut self, settings: &ServeConfig, recording: Recording, processor: P, steps: StepLog)
    where
        P: RequestProcessor<SqlStorage, Session> + 'static,
    {
        let _entered = self.threads.enter();
        let daemon = Daemon {
            storage: self.storage.clone(),
            blobs: self.blobs.clone(),
            registry: self.registry.clone(),
            processor: Arc::new(processor),
            steps,
            should_retry: settings.worker.should_retry(),
            clock: Clock::System,
            wakeup: self.wakeup.clone(),
            webhooks: self.webhooks.clone(),
            settings: daemon_settings(settings, recording),
        };
        self.daemon = Some(daemon.start());
        // It ends with the threads: a hint may come at any time, and none may come.
        let (hints, woken) = (self.storage.clone(), self.wakeup.clone());
        tokio::spawn(async move { hints.relay_hints(&woken).await });
    }

    /// The database.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    /// The bytes of files.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// What tells the daemon of a new batch.
    pub(crate) fn wakeup(&self) -> &Wakeup {
        &self.wakeup
    }

    /// The inference servers, and what is known of them.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The upstreams of the settings, which can be read again. None if an embedding program brings its own client.
    pub(crate) fn upstreams(&self) -> Option<Arc<Upstreams>> {
        self.upstreams.clone()
    }

    /// Whether the loops of the daemon turn; None without a daemon.
    pub(super) fn liveness(&self) -> Option<Liveness> {
        self.daemon.as_ref().map(RunningDaemon::liveness)
    }

    /// Stops the daemon: calls in flight may end within `grace`, and every outcome is recorded before this returns.
    pub(crate) async fn stop(&mut self, grace: Duration) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop(grace).await;
        }
    }
}

/// A runtime that may be dropped anywhere, and then ends by itself.
struct Threads(Option<Runtime>);

impl Threads {
    fn new() -> Result<Self, ServiceError> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name("batchwright-daemon").build()?;
        Ok(Self(Some(runtime)))
    }

    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn daemon_settings(settings: &ServeConfig, recording: Recording) -> DaemonSettings {
    DaemonSettings {
        max_concurrency: settings.worker.max_concurrency as usize,
        global_max_concurrency: settings.worker.global_max_concurrency.map(|limit| limit as usize),
        lease: settings.worker.lease,
        sweep_every: SWEEP_EVERY,
        retry: settings.worker.retry_policy(),
        steps_retention: settings.responses.steps_retention,
        limits: settings.limits.input.batch(),
        projects: settings.limits.projects.clone(),
        pause_after_alike: u64::from(settings.worker.pause_after_alike),
        batches_have_priorities: settings.worker.batch_priorities,
        refuses_unknown_models: settings.upstream.unknown_models == UnknownModels::Refuse,
        metadata_headers: settings.upstream.metadata_headers.clone(),
        recording,
    }
}

/// The processor that runs rows through the inference server and the tools of the settings.
fn endpoint_processor(
    settings: &ServeConfig,
    ca: Option<&Certificates>,
    blobs: &Blobs,
    steps: StepLog,
) -> Result<EndpointProcessor, ServiceError> {
    let config = &settings.responses;
    let tls = ca.map(tls_of).transpose().map_err(ServiceError::Tools)?;
    let catalog = Catalog::new(&config.tools, &config.mcp_allowed_hosts, tls.as_ref()).map_err(ServiceError::Tools)?;
    let schemas = Arc::new(AnswerSchemas::new(config.ensure_schema, config.schema_retries));
    let responses =
        ResponsesProcessor::new(config.limits(), catalog, schemas.clone(), steps, blobs.clone(), Clock::System);
    let audio = AudioFiles::new(&settings.worker.file_url_hosts).map_err(ServiceError::Tools)?;
    Ok(EndpointProcessor::new(responses, schemas, audio, Clock::System))
}

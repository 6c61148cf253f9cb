//! The service: everything a process runs, put together, served, and stopped in order.

use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::error::ServiceError;
use super::open_files;
use super::storage::{self, Opened};
use super::upstream::{Upstreams, only_server, tls_of};
use crate::api::{self, App, ServerLimits, ShutdownTokens};
use crate::config::{Certificates, ResponsesConfig, ServeConfig, UnknownModels};
use crate::daemon::{Daemon, DaemonSettings, RunningDaemon};
use crate::dashboard;
use crate::domain::time::Clock;
use crate::processor::{AnswerSchemas, EndpointProcessor, RequestProcessor, ResponsesProcessor, StepLog};
use crate::storage::blobs::Blobs;
use crate::storage::sql::SqlStorage;
use crate::tools::Catalog;
use crate::upstream::{HttpClient, Registry, Server, Session};
use crate::wakeup::Wakeup;

/// How long removals that have begun may take, once nothing else is under way.
const LAST_REMOVALS: Duration = Duration::from_secs(5);

/// How long answers may still take when everything else has ended.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How often one of the blob store's directories is swept: all of them every two hours or so.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The API, the daemon or both in this process, as the settings say. The daemon runs from the start; the API answers
/// once [`serve`](Self::serve) is called.
pub struct Service {
    router: Router,
    daemon: Option<RunningDaemon>,
    stop: ShutdownTokens,
    limits: ServerLimits,
    blobs: Blobs,
    /// The daemon's own threads: a status read does not queue behind thousands of rows.
    threads: Threads,
    settings: ServeConfig,
    /// None if an embedding program brings its own client.
    upstreams: Option<Arc<Upstreams>>,
    /// Held as long as the service is: one process uses a data directory.
    _lock: Option<File>,
}

impl Service {
    /// A service in front of the inference server that the settings name.
    ///
    /// # Errors
    /// What the settings lack, or why the storage cannot be used.
    pub async fn start(settings: ServeConfig, metrics: Option<PrometheusHandle>) -> Result<Self, ServiceError> {
        Self::start_within(ServerLimits::default(), settings, metrics).await
    }

    /// The same, with other limits for its connections.
    ///
    /// # Errors
    /// What the settings lack, or why the storage cannot be used.
    pub async fn start_within(
        limits: ServerLimits,
        settings: ServeConfig,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, ServiceError> {
        let upstreams = Upstreams::new(&settings, &Clock::System)?;
        let (responses, ca) = (settings.responses.clone(), settings.upstream.upstream_ca.clone());
        let processor = move |blobs: &Blobs, steps: StepLog| endpoint_processor(&responses, ca.as_ref(), blobs, steps);
        let service = Self::assemble(limits, settings, upstreams.registry().clone(), processor, metrics).await?;
        Ok(Self { upstreams: Some(Arc::new(upstreams)), ..service })
    }

    /// A service whose rows are run by a processor of the embedding program's own, with whatever it calls. Metrics
    /// go to the recorder that the program has installed, if any, and `GET /metrics` is empty.
    ///
    /// # Errors
    /// Why the storage cannot be used.
    pub async fn embed<H, P>(settings: ServeConfig, http: H, processor: P) -> Result<Self, ServiceError>
    where
        H: HttpClient,
        P: RequestProcessor<SqlStorage, Session> + 'static,
    {
        let server = Server::embedded(http, only_server(&settings), Clock::System);
        Self::assemble(ServerLimits::default(), settings, Registry::of(server), |_, _| Ok(processor), None).await
    }

    /// Opens the storage, starts the daemon with the processor that goes with it, and makes the router.
    async fn assemble<P>(
        limits: ServerLimits,
        settings: ServeConfig,
        registry: Registry,
        processor: impl FnOnce(&Blobs, StepLog) -> Result<P, ServiceError>,
        metrics: Option<PrometheusHandle>,
    ) -> Result<Self, ServiceError>
    where
        P: RequestProcessor<SqlStorage, Session> + 'static,
    {
        let clock = Clock::System;
        let calls = if settings.http.role.runs_rows() { settings.worker.max_concurrency } else { 0 };
        let limits = open_files::within_limit(limits, calls);
        let Opened { storage, blobs, lock } = storage::open(&settings.storage).await?;
        let wakeup = Wakeup::new();
        let mut service = Self {
            router: Router::new(),
            daemon: None,
            stop: ShutdownTokens::default(),
            limits,
            blobs: blobs.clone(),
            threads: Threads::new()?,
            settings,
            upstreams: None,
            _lock: lock,
        };
        let settings = &service.settings;
        if settings.http.role.runs_rows() {
            let _entered = service.threads.enter();
            let steps = StepLog::default();
            let daemon = Daemon {
                storage: storage.clone(),
                blobs: blobs.clone(),
                registry: registry.clone(),
                processor: Arc::new(processor(&blobs, steps.clone())?),
                steps,
                should_retry: settings.worker.should_retry(),
                clock: clock.clone(),
                wakeup: wakeup.clone(),
                settings: daemon_settings(settings),
            };
            service.daemon = Some(daemon.start());
            // It ends with the threads: a hint may come at any time, and none may come.
            let (hints, woken) = (storage.clone(), wakeup.clone());
            tokio::spawn(async move { hints.relay_hints(&woken).await });
        }
        let app = Arc::new(App {
            storage,
            blobs,
            clock,
            wakeup,
            intake: settings.limits.intake(),
            batch_limits: settings.limits.batch(),
            uploads: Semaphore::new(limits.uploads),
            windows: settings.limits.completion_windows.clone(),
            registry,
            liveness: service.daemon.as_ref().map(RunningDaemon::liveness),
            cors_allowed_origins: settings.http.cors_allowed_origins.clone(),
            stopping: service.stop.stopping.clone(),
            metrics,
        });
        service.router = if settings.http.role.serves_api() {
            api::router(app.clone()).merge(dashboard::router(app))
        } else {
            api::health_router(app)
        };
        Ok(service)
    }

    /// The upstreams of the settings, which can be read again. None if an embedding program brings its own client.
    #[must_use]
    pub fn upstreams(&self) -> Option<Arc<Upstreams>> {
        self.upstreams.clone()
    }

    /// Serves until `stop` resolves. Then the daemon stops in its own time, while clients still have their answers, and
    /// only uploads are turned away.
    ///
    /// # Errors
    /// Why connections can no longer be accepted.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServiceError> {
        let ShutdownTokens { stopping, closing, cut } = self.stop.clone();
        let mut serving = tokio::spawn(api::serve(listener, self.router, self.limits, self.stop));
        stop.await;
        stopping.cancel();
        let grace = self.settings.http.grace;
        let deadline = Instant::now() + grace;
        if let Some(daemon) = self.daemon {
            daemon.stop(grace).await;
        }
        closing.cancel();
        // Requests under way have the same time as calls in flight, and a moment for their last bytes.
        if tokio::time::timeout_at(deadline.max(Instant::now() + LAST_BYTES), &mut serving).await.is_err() {
            cut.cancel();
            serving.await.map_err(ServiceError::Server)?;
        }
        // Uploads that were broken off have left something behind, which is removed beside everything else.
        if tokio::time::timeout(LAST_REMOVALS, self.blobs.settled()).await.is_err() {
            tracing::warn!("unfinished blobs are left behind; they are removed after a day");
        }
        Ok(())
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

fn daemon_settings(settings: &ServeConfig) -> DaemonSettings {
    DaemonSettings {
        max_concurrency: settings.worker.max_concurrency as usize,
        global_max_concurrency: settings.worker.global_max_concurrency.map(|limit| limit as usize),
        lease: settings.worker.lease,
        sweep_every: SWEEP_EVERY,
        retry: settings.worker.retry_policy(),
        steps_retention: settings.responses.steps_retention,
        limits: settings.limits.batch(),
        batches_have_priorities: settings.worker.batch_priorities,
        refuses_unknown_models: settings.upstream.unknown_models == UnknownModels::Refuse,
        metadata_headers: settings.upstream.metadata_headers.clone(),
    }
}

/// The processor that runs rows through the inference server and the tools of the settings.
fn endpoint_processor(
    config: &ResponsesConfig,
    ca: Option<&Certificates>,
    blobs: &Blobs,
    steps: StepLog,
) -> Result<EndpointProcessor, ServiceError> {
    let tls = ca.map(tls_of).transpose().map_err(ServiceError::Tools)?;
    let catalog = Catalog::new(&config.tools, &config.mcp_allowed_hosts, tls.as_ref()).map_err(ServiceError::Tools)?;
    let schemas = Arc::new(AnswerSchemas::new(config.ensure_schema, config.schema_retries));
    let responses =
        ResponsesProcessor::new(config.limits(), catalog, schemas.clone(), steps, blobs.clone(), Clock::System);
    Ok(EndpointProcessor::new(responses, schemas, Clock::System))
}

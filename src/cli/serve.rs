//! `batchwright serve`: the one place where everything is put together.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use clap::Args;
use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::header::HeaderValue;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, EnterGuard, Runtime};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::open_files;
use super::opened::{self, Opened};
use super::shutdown;
use crate::api::{self, App, ServerLimits, ShutdownTokens};
use crate::config::{ResponsesConfig, ServeConfig, ToolsConfig, UpstreamConfig, shown_url, without_credentials};
use crate::daemon::{Daemon, DaemonSettings, RunningDaemon};
use crate::domain::time::Clock;
use crate::processor::{EndpointProcessor, Ensured, RequestProcessor, ResponsesProcessor, StepLog};
use crate::storage::blobs::Blobs;
use crate::storage::sql::SqlStorage;
use crate::telemetry::{logs, metrics};
use crate::tools::Catalog;
use crate::upstream::{HttpClient, ReqwestHttpClient, Session, UpstreamSettings};
use crate::wakeup::Wakeup;

/// How long what was begun to be removed may take, once nothing else is under way.
const LAST_REMOVALS: Duration = Duration::from_secs(5);

/// How long answers may take that are not through when everything else is.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How often one of the blob store's directories is swept: all of them every two hours or so.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The arguments of `serve`.
#[derive(Args, Debug, Clone)]
pub struct ServeArgs {
    /// Settings file in TOML, with the names of these flags as keys and tables of tools. Flags and environment
    /// variables win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The settings.
    #[command(flatten)]
    pub settings: ServeConfig,
}

/// A service that is put together and not started: for `serve`, and for whoever else wants one in this process.
pub struct Service {
    router: Router,
    daemon: Option<RunningDaemon>,
    stop: ShutdownTokens,
    limits: ServerLimits,
    blobs: Blobs,
    /// The daemon's own threads: a status read does not queue behind thousands of rows.
    threads: Threads,
    settings: ServeConfig,
    /// Held as long as the service is: one process uses a data directory.
    _lock: Option<File>,
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let mut settings = args.settings;
    if let Some(path) = &args.config {
        settings.responses.tools = ToolsConfig::read(path)?;
    }
    logs::start(&settings.log.log)?;
    open_files::raise_limit();
    let metrics = metrics::start()?;
    tokio::spawn(metrics::keep_up(metrics.clone()));
    let listen_on = settings.http.listen;
    if settings.http.role.serves_api() && !listen_on.ip().is_loopback() {
        tracing::warn!(
            address = %listen_on,
            "anybody who can reach this address can use the API: there are no keys. Listen on 127.0.0.1, or let only a \
             proxy that asks for credentials reach it"
        );
    }
    let service = Service::start(settings, Some(metrics)).await?;
    let listener = listen(listen_on).await?;
    tracing::info!(address = %format!("http://{}/v1", listener.local_addr()?), "listening");
    let serving = service.serve(listener, async {
        shutdown::requested().await;
        tracing::info!("stopping; a second signal ends the program at once");
    });
    tokio::select! {
        served = serving => served?,
        // Recorded lines are durable whenever the process ends.
        () = async { shutdown::requested().await; shutdown::requested().await } => tracing::warn!("stopped at once"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Service {
    /// A service in front of the inference server that the settings name.
    ///
    /// # Errors
    /// What the settings lack, or why the storage cannot be used.
    pub async fn start(settings: ServeConfig, metrics: Option<PrometheusHandle>) -> anyhow::Result<Self> {
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
    ) -> anyhow::Result<Self> {
        let http = upstream(&settings.upstream, settings.worker.max_concurrency, &Clock::System)?;
        let responses = settings.responses.clone();
        let processor = move |storage: &Arc<SqlStorage>, blobs: &Blobs| endpoint_processor(&responses, storage, blobs);
        Self::assemble(limits, settings, http.clone(), processor, Some(http), metrics).await
    }

    /// A service whose rows are run by a processor of the embedding program's own, with whatever it calls.
    ///
    /// # Errors
    /// Why the storage cannot be used.
    pub async fn embed<H, P>(settings: ServeConfig, http: H, processor: P) -> anyhow::Result<Self>
    where
        H: HttpClient,
        P: RequestProcessor<SqlStorage, Session<H>> + 'static,
    {
        Self::assemble(ServerLimits::default(), settings, http, |_, _| Ok(processor), None, None).await
    }

    /// Opens the storage, starts the daemon with the processor that goes with it, and makes the router.
    async fn assemble<H, P>(
        limits: ServerLimits,
        settings: ServeConfig,
        http: H,
        processor: impl FnOnce(&Arc<SqlStorage>, &Blobs) -> anyhow::Result<P>,
        models: Option<ReqwestHttpClient>,
        metrics: Option<PrometheusHandle>,
    ) -> anyhow::Result<Self>
    where
        H: HttpClient,
        P: RequestProcessor<SqlStorage, Session<H>> + 'static,
    {
        let clock = Clock::System;
        let calls = if settings.http.role.runs_rows() { settings.worker.max_concurrency } else { 0 };
        let limits = open_files::within_limit(limits, calls);
        let Opened { storage, blobs, lock } = opened::open(&settings.storage).await?;
        let wakeup = Wakeup::new();
        let mut service = Self {
            router: Router::new(),
            daemon: None,
            stop: ShutdownTokens::default(),
            limits,
            blobs: blobs.clone(),
            threads: Threads::new()?,
            settings,
            _lock: lock,
        };
        let settings = &service.settings;
        if settings.http.role.runs_rows() {
            let _entered = service.threads.enter();
            let daemon = Daemon {
                storage: storage.clone(),
                blobs: blobs.clone(),
                http,
                processor: Arc::new(processor(&storage, &blobs)?),
                should_retry: settings.worker.should_retry(),
                clock: clock.clone(),
                wakeup: wakeup.clone(),
                settings: DaemonSettings {
                    max_concurrency: settings.worker.max_concurrency as usize,
                    global_max_concurrency: settings.worker.global_max_concurrency.map(|limit| limit as usize),
                    lease: settings.worker.lease,
                    sweep_every: SWEEP_EVERY,
                    retry: settings.worker.retry_policy(),
                    steps_retention: settings.responses.steps_retention,
                    limits: settings.limits.batch(),
                },
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
            uploads: Semaphore::new(limits.uploads),
            windows: settings.limits.completion_windows.clone(),
            upstream: models,
            liveness: service.daemon.as_ref().map(RunningDaemon::liveness),
            stopping: service.stop.stopping.clone(),
            metrics,
        });
        service.router = if settings.http.role.serves_api() { api::router(app) } else { api::health_router(app) };
        Ok(service)
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
    ) -> anyhow::Result<()> {
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
            serving.await?;
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
    fn new() -> anyhow::Result<Self> {
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

/// Binds an address.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; give another address with --listen"))
}

/// What runs rows in `batchwright serve`.
fn endpoint_processor(
    config: &ResponsesConfig,
    storage: &Arc<SqlStorage>,
    blobs: &Blobs,
) -> anyhow::Result<EndpointProcessor> {
    let catalog = Catalog::new(&config.tools, &config.mcp_allowed_hosts).map_err(anyhow::Error::msg)?;
    let ensured = Arc::new(Ensured::new(config.ensure_schema, config.schema_retries));
    let steps = StepLog::start(storage.clone());
    let responses =
        ResponsesProcessor::new(config.into(), catalog, ensured.clone(), steps, blobs.clone(), Clock::System);
    Ok(EndpointProcessor::new(responses, ensured, Clock::System))
}

fn upstream(config: &UpstreamConfig, concurrency: u32, clock: &Clock) -> anyhow::Result<ReqwestHttpClient> {
    let Some(given) = &config.upstream else {
        bail!(
            "no inference server is given: say which with --upstream URL, such as --upstream http://127.0.0.1:8000/v1 \
             (or try `batchwright demo`, which brings its own)"
        );
    };
    let base_url = given.reveal().parse().context("--upstream is not a URL")?;
    let (base_url, credentials) =
        without_credentials(base_url).map_err(|why| anyhow::anyhow!("--upstream cannot be used: {why}"))?;
    let key = match (&config.upstream_key, credentials) {
        (Some(_), Some(_)) => bail!(
            "--upstream has a user name or a password in it, and --upstream-key is given too; both are sent as the header \
             Authorization: leave one of them out"
        ),
        (Some(key), None) => Some(format!("Bearer {}", key.reveal())),
        (None, credentials) => credentials.map(|credentials| credentials.reveal().to_owned()),
    };
    let sensitive = |key: String| {
        let mut value =
            HeaderValue::try_from(key).context("--upstream-key has characters that no HTTP header can have")?;
        value.set_sensitive(true);
        anyhow::Ok(value)
    };
    let key = key.map(sensitive).transpose()?;
    tracing::info!(upstream = shown_url(base_url.as_str()), concurrency, "upstream");
    let settings = UpstreamSettings { base_url, key, timeout: config.request_timeout, max_idle: concurrency as usize };
    ReqwestHttpClient::new(&settings, clock.clone()).context("the HTTP client cannot be set up")
}

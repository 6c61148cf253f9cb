//! The service: everything a process runs, put together, served, and stopped in order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::engine::BatchEngine;
use super::error::ServiceError;
use super::open_files;
use super::upstream::Upstreams;
use crate::api::{self, Access, App, RequestRates, ServerLimits, ServerTls, ShutdownTokens, UploadSlots};
use crate::config::{HttpConfig, ServeConfig};
use crate::daemon::Recording;
use crate::dashboard;
use crate::domain::time::Clock;
use crate::processor::RequestProcessor;
use crate::storage::Storage;
use crate::storage::sql::SqlStorage;
use crate::upstream::{HttpClient, Session};
use crate::webhooks::reach_of;

/// How long removals that have begun may take, once nothing else is under way.
const LAST_REMOVALS: Duration = Duration::from_secs(5);

/// How long answers may still take when everything else has ended.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Connections of the listener that has the metrics alone.
const METRICS_CONNECTIONS: usize = 64;

/// The API, the daemon or both in this process, as the settings say. The daemon runs from the start; the API answers
/// once [`serve`](Self::serve) is called.
pub struct Service {
    router: Router,
    access: Arc<Access>,
    tls: Option<ServerTls>,
    /// The metrics, if they have a listener of their own.
    metrics_router: Router,
    metrics_listener: Option<TcpListener>,
    engine: BatchEngine,
    stop: ShutdownTokens,
    limits: ServerLimits,
    grace: Duration,
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
        let tls = tls_of(&settings)?;
        let mut engine = BatchEngine::open(&settings).await?;
        refuse_to_be_open(&settings.http, &*engine.storage()).await?;
        if settings.http.role.runs_rows() {
            engine.run_rows(&settings, Recording::Gathered)?;
        }
        Ok(Self::around(engine, limits, &settings, tls, metrics))
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
        let tls = tls_of(&settings)?;
        let engine = BatchEngine::embed(&settings, http, processor).await?;
        Ok(Self::around(engine, ServerLimits::default(), &settings, tls, None))
    }

    /// Gives an engine its router.
    fn around(
        engine: BatchEngine,
        limits: ServerLimits,
        settings: &ServeConfig,
        tls: Option<ServerTls>,
        metrics: Option<PrometheusHandle>,
    ) -> Self {
        let calls = if settings.http.role.runs_rows() { settings.worker.max_concurrency } else { 0 };
        let limits = open_files::within_limit(limits, calls);
        let stop = ShutdownTokens::default();
        let access = Arc::new(Access::new(engine.storage(), Clock::System, settings.http.allow_anonymous));
        let app = Arc::new(App {
            storage: engine.storage(),
            blobs: engine.blobs().clone(),
            clock: Clock::System,
            wakeup: engine.wakeup().clone(),
            intake: settings.limits.input.intake(),
            batch_limits: settings.limits.input.batch(),
            uploads: UploadSlots::new(limits.uploads, settings.limits.projects.clone()),
            prices: settings.http.prices.clone(),
            waits: Arc::new(Semaphore::new(limits.waits)),
            orders: Arc::new(Semaphore::new(limits.orders)),
            steps_retention: settings.responses.steps_retention,
            windows: settings.limits.completion_windows.clone(),
            webhook_reach: reach_of(&settings.webhooks),
            registry: engine.registry().clone(),
            liveness: engine.liveness(),
            access: access.clone(),
            project_limits: settings.limits.projects.clone(),
            request_rates: RequestRates::new(settings.limits.projects.clone()),
            cors_allowed_origins: settings.http.cors_allowed_origins.clone(),
            stopping: stop.stopping.clone(),
            is_tls: tls.is_some(),
            has_metrics_apart: settings.http.metrics_listen.is_some(),
            metrics,
        });
        let metrics_router = api::metrics_router(&app);
        let router = if settings.http.role.serves_api() {
            api::router(&app).merge(dashboard::router(app))
        } else {
            api::health_router(&app)
        };
        let grace = settings.http.grace;
        Self { router, access, tls, metrics_router, metrics_listener: None, engine, stop, limits, grace }
    }

    /// The upstreams of the settings, which can be read again. None if an embedding program brings its own client.
    #[must_use]
    pub fn upstreams(&self) -> Option<Arc<Upstreams>> {
        self.engine.upstreams()
    }

    /// Serves the metrics on a listener of their own, for as long as [`serve`](Self::serve) serves the rest. The
    /// settings must say so too ([`HttpConfig::metrics_listen`](crate::config::HttpConfig::metrics_listen)).
    #[must_use]
    pub fn with_metrics_on(self, listener: TcpListener) -> Self {
        Self { metrics_listener: Some(listener), ..self }
    }

    /// Serves until `stop` resolves. Then the daemon stops in its own time, while clients still have their answers, and
    /// only uploads are turned away. On an address beyond loopback, calls without a key are not answered unless the
    /// settings allow them.
    ///
    /// # Errors
    /// Why connections can no longer be accepted.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServiceError> {
        let ShutdownTokens { stopping, closing, cut } = self.stop.clone();
        self.access.listen_on(listener.local_addr()?);
        let few = self.limits.with_connections(METRICS_CONNECTIONS);
        let _metrics = self.metrics_listener.map(|listener| {
            let serving = api::serve(listener, self.metrics_router, few, self.stop.clone(), None);
            AbortOnDropHandle::new(tokio::spawn(serving))
        });
        let mut serving = tokio::spawn(api::serve(listener, self.router, self.limits, self.stop, self.tls));
        stop.await;
        stopping.cancel();
        let deadline = Instant::now() + self.grace;
        self.engine.stop(self.grace).await;
        closing.cancel();
        // Requests under way have the same time as calls in flight, and a moment for their last bytes.
        if tokio::time::timeout_at(deadline.max(Instant::now() + LAST_BYTES), &mut serving).await.is_err() {
            cut.cancel();
            serving.await.map_err(ServiceError::Server)?;
        }
        // Uploads that were broken off have left something behind, which is removed beside everything else.
        if tokio::time::timeout(LAST_REMOVALS, self.engine.blobs().settled()).await.is_err() {
            tracing::warn!("unfinished blobs are left behind; they are removed after a day");
        }
        Ok(())
    }
}

/// An API beyond loopback needs a key or the word of the operator, before anything is begun.
async fn refuse_to_be_open(http: &HttpConfig, storage: &dyn Storage) -> Result<(), ServiceError> {
    let is_closed = !http.role.serves_api() || http.listen.ip().to_canonical().is_loopback() || http.allow_anonymous;
    if is_closed || storage.has_keys().await? { Ok(()) } else { Err(ServiceError::NoKeys(http.listen)) }
}

/// The certificate of the settings. They have both files or none.
fn tls_of(settings: &ServeConfig) -> Result<Option<ServerTls>, ServiceError> {
    let files = settings.http.tls_cert.as_ref().zip(settings.http.tls_key.as_ref());
    Ok(files.map(|(certificate, key)| ServerTls::read(certificate, key)).transpose()?)
}

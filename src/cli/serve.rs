//! `batchwright serve`: settings in, a service that runs until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;

use super::shutdown;
use crate::app::{Service, Upstreams, raise_limit_of_open_files};
use crate::config::{ServeConfig, ToolsConfig, UpstreamTable, WebhookTable, read_prices, read_project_limits};
use crate::telemetry::{chain, logs, metrics};

/// The arguments of `serve`.
#[derive(Args, Debug, Clone)]
pub struct ServeArgs {
    /// Settings file in TOML: its keys are the names of these flags, and it has tables of upstreams and of tools. Flags
    /// and environment variables win over it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The settings.
    #[command(flatten)]
    pub settings: ServeConfig,
}

pub(super) async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let mut settings = args.settings;
    if let Some(path) = &args.config {
        settings.responses.tools = ToolsConfig::read(path)?;
        settings.upstream.upstreams = UpstreamTable::read_all(path)?;
        settings.http.prices = read_prices(path)?;
        settings.limits.projects = read_project_limits(path)?.into();
        settings.webhooks.receivers = WebhookTable::read_all(path)?;
    }
    let has_tables = !settings.upstream.upstreams.is_empty();
    logs::start(&settings.log.log)?;
    raise_limit_of_open_files();
    let metrics = metrics::start()?;
    tokio::spawn(metrics::keep_up(metrics.clone()));
    let listen_on = settings.http.listen;
    if settings.http.role.serves_api() && !listen_on.ip().is_loopback() && settings.http.allow_anonymous {
        tracing::warn!(
            %listen_on,
            "whoever can reach this address can act for the project 'default' without a key: --allow-anonymous"
        );
    }
    let (metrics_on, scheme) =
        (settings.http.metrics_listen, if settings.http.tls_cert.is_some() { "https" } else { "http" });
    let mut service = Service::start(settings, Some(metrics)).await?;
    if let Some(upstreams) = service.upstreams() {
        tokio::spawn(async move { upstreams.check().await });
    }
    // Without tables there is nothing to read again, and a hangup ends the program in order.
    let reads_again = args.config.filter(|_| has_tables).zip(service.upstreams());
    let ends_on_hangup = reads_again.is_none();
    if let Some((path, upstreams)) = reads_again {
        tokio::spawn(read_upstreams_on_hangup(path, upstreams));
    }
    let listener = listen(listen_on).await?;
    if let Some(metrics_on) = metrics_on {
        let listener = TcpListener::bind(metrics_on).await;
        let listener =
            listener.with_context(|| format!("cannot listen on {metrics_on}, which --metrics-listen gives"))?;
        tracing::info!(listener = %listener.local_addr()?, "metrics are served");
        service = service.with_metrics_on(listener);
    }
    tracing::info!(address = %format!("{scheme}://{}/v1", listener.local_addr()?), "listening");
    let serving = service.serve(listener, async move {
        shutdown::requested(ends_on_hangup).await;
        tracing::info!("stopping; a second signal ends the program at once");
    });
    let asked_twice = async {
        shutdown::requested(ends_on_hangup).await;
        shutdown::requested(ends_on_hangup).await;
    };
    tokio::select! {
        served = serving => served?,
        // Recorded lines are durable whenever the process ends.
        () = asked_twice => tracing::warn!("stopped at once"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the upstreams of the settings file again on each SIGHUP.
async fn read_upstreams_on_hangup(path: PathBuf, upstreams: Arc<Upstreams>) {
    let Some(mut hangups) = shutdown::listen(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        match upstreams.read_again(&path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "the upstreams of the settings file were read again");
                let upstreams = upstreams.clone();
                tokio::spawn(async move { upstreams.check().await });
            }
            Err(error) => tracing::error!(error = chain(&error), "the upstreams stay as they are"),
        }
    }
}

/// Binds an address.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; give another address with --listen"))
}

//! `batchwright serve`: settings in, a service that runs until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::net::TcpListener;

use super::shutdown;
use crate::app::{Service, raise_limit_of_open_files};
use crate::config::{ServeConfig, ToolsConfig};
use crate::telemetry::{logs, metrics};

/// The arguments of `serve`.
#[derive(Args, Debug, Clone)]
pub struct ServeArgs {
    /// Settings file in TOML: its keys are the names of these flags, and it has tables of tools. Flags and environment
    /// variables win over it.
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
    }
    logs::start(&settings.log.log)?;
    raise_limit_of_open_files();
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

/// Binds an address.
pub(super) async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; give another address with --listen"))
}

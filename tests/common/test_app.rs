//! The whole service in this process, on a free port, with a data directory and an upstream of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use batchwright::api::ServerLimits;
use batchwright::app::{Service, ServiceError, Upstreams};
use batchwright::config::{ServeConfig, UpstreamTable, WebhookTable, read_prices, read_project_limits};
use clap::Parser;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::Client;
use super::eventually::eventually;
use super::fake_upstream::FakeUpstream;
use super::keys::Key;

/// A running service. It is a [`Client`] of itself.
pub struct TestApp {
    client: Client,
    pub address: SocketAddr,
    pub upstream: FakeUpstream,
    upstreams: Arc<Upstreams>,
    directory: TempDir,
    runtime: OwnRuntime,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// A service that was told to stop.
pub struct Stopping {
    /// What still answers.
    pub client: Client,
    pub upstream: FakeUpstream,
    directory: TempDir,
    runtime: OwnRuntime,
    serving: JoinHandle<()>,
}

/// What is left of a service that has ended, and what one needs to start.
pub struct Stopped {
    pub upstream: FakeUpstream,
    directory: TempDir,
}

/// `serve` as the command line has it, for its defaults.
#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    settings: ServeConfig,
}

impl TestApp {
    /// A service with every setting at its default.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A service with these flags of `serve`.
    pub async fn with(flags: &[&str]) -> Self {
        Stopped::new(FakeUpstream::start()).start(flags).await
    }

    /// A service with these limits of its connections.
    pub async fn within(limits: ServerLimits, flags: &[&str]) -> Self {
        Stopped::new(FakeUpstream::start()).start_within(limits, flags).await
    }

    /// Stops the service as SIGTERM does.
    pub async fn stop(self) -> Stopped {
        self.begin_to_stop().ended().await
    }

    /// Tells the service to stop.
    pub fn begin_to_stop(self) -> Stopping {
        let Self { client, upstream, directory, runtime, stop, serving, .. } = self;
        let _ = stop.send(());
        Stopping { client, upstream, directory, runtime, serving }
    }

    /// Ends the service from one moment to the next, as SIGKILL does.
    pub async fn crash(self) -> Stopped {
        self.runtime.end().await;
        Stopped { upstream: self.upstream, directory: self.directory }
    }

    /// Has the service read its upstreams again, from this settings file.
    pub fn read_upstreams(&self, file: &str) -> Result<(), ServiceError> {
        self.upstreams.read_again(&settings_file(&self.directory, file))
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.data().join("batchwright.db")
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.directory.path()
    }

    /// A client with a new key of a project, made beside the service. Every call needs a key when this returns.
    pub async fn client_of(&self, project: &str, scopes: &str) -> Client {
        let client = Key::create(self.data(), project, scopes).await.client(&self.base_url);
        self.calls_need_a_key().await;
        client
    }

    /// Waits until the service has noticed that there are keys.
    pub async fn calls_need_a_key(&self) {
        eventually("calls to need a key", async || (self.get("/v1/batches").await.status == 401).then_some(())).await;
    }

    /// Every blob in the blob store.
    pub fn blobs(&self) -> Vec<PathBuf> {
        blobs_below(&self.directory)
    }
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Stopping {
    /// Waits for the end.
    pub async fn ended(self) -> Stopped {
        self.serving.await.expect("the service stops in order");
        self.runtime.end().await;
        Stopped { upstream: self.upstream, directory: self.directory }
    }
}

impl Stopped {
    /// Every blob in the blob store.
    pub fn blobs(&self) -> Vec<PathBuf> {
        blobs_below(&self.directory)
    }

    /// An empty data directory.
    pub fn new(upstream: FakeUpstream) -> Self {
        Self { upstream, directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// Starts a service with these flags of `serve`.
    pub async fn start(self, flags: &[&str]) -> TestApp {
        self.start_within(ServerLimits::default(), flags).await
    }

    /// Starts a service with these limits of its connections, and these flags of `serve`.
    pub async fn start_within(self, limits: ServerLimits, flags: &[&str]) -> TestApp {
        let mut settings = self.settings(flags);
        settings.upstream.upstream = Some(format!("http://{}/v1", self.upstream.address).parse().expect("any text"));
        self.start_as(limits, settings).await
    }

    /// Starts a service with these flags of `serve`, and the upstreams of this settings file.
    pub async fn start_with_upstreams(self, file: &str, flags: &[&str]) -> TestApp {
        let mut settings = self.settings(flags);
        let path = settings_file(&self.directory, file);
        settings.upstream.upstreams = UpstreamTable::read_all(&path).expect("the tables are in order");
        settings.http.prices = read_prices(&path).expect("the table is in order");
        settings.limits.projects = read_project_limits(&path).expect("the table is in order").into();
        settings.webhooks.receivers = WebhookTable::read_all(&path).expect("the tables are in order");
        self.start_as(ServerLimits::default(), settings).await
    }

    fn settings(&self, flags: &[&str]) -> ServeConfig {
        let mut arguments: Vec<OsString> = vec!["serve".into(), "--data-dir".into(), self.directory.path().into()];
        arguments.extend(flags.iter().map(OsString::from));
        Serve::try_parse_from(arguments).expect("the flags are those of `serve`").settings
    }

    async fn start_as(self, limits: ServerLimits, settings: ServeConfig) -> TestApp {
        let runtime = OwnRuntime::new();
        let starting = runtime.get().spawn(async move {
            let service = Service::start_within(limits, settings, None).await.expect("the service starts");
            (service, TcpListener::bind("127.0.0.1:0").await.expect("a free port"))
        });
        let (service, listener) = starting.await.expect("the service starts");
        let address = listener.local_addr().expect("the listener is bound");
        let upstreams = service.upstreams().expect("the settings have them");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = runtime.get().spawn(async move {
            let told = async {
                let _ = stopped.await;
            };
            service.serve(listener, told).await.expect("the service serves");
        });
        let client = Client::new(format!("http://{address}"));
        let Self { upstream, directory } = self;
        TestApp { client, address, upstream, upstreams, directory, runtime, stop, serving }
    }
}

/// A service's own runtime, so that it can end from one moment to the next, and always ends with its test.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self(Some(runtime.expect("a runtime")))
    }

    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("it has not ended")
    }

    /// Ends the runtime and everything in it. What it was doing is dropped where it stands.
    async fn end(mut self) {
        let runtime = self.0.take().expect("it has not ended");
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(30)));
        ended.await.expect("a runtime can be shut down");
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn settings_file(directory: &TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("batchwright.toml");
    std::fs::write(&path, text).expect("the file can be written");
    path
}

fn blobs_below(directory: &TempDir) -> Vec<PathBuf> {
    let mut blobs = files_below(&directory.path().join("blobs"));
    // The mark that the store belongs to its database is none.
    blobs.retain(|path| !path.components().any(|folder| folder.as_os_str() == "deployment"));
    blobs
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let paths = entries.map(|entry| entry.expect("the directory can be read").path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

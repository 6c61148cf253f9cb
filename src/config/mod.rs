//! Settings: read once, checked once, and passed on section by section.
//!
//! A setting is one field with one doc comment, which is its help text and its line in the README. Its value comes from
//! the flag, else from the environment variable `BATCHWRIGHT_…`, else from the file named by `--config`, else from the
//! default.

mod certificates;
mod durations;
mod file;
mod headers;
mod http;
mod limits;
mod log;
mod prices;
mod project_limits;
mod remote;
mod responses;
mod secret;
mod storage;
mod tools;
mod upstream;
mod upstreams;
mod webhooks;
mod worker;

use clap::{Args, Command, FromArgMatches as _};

pub use certificates::Certificates;
pub(crate) use durations::{duration, read_duration, read_optional_duration};
pub(crate) use file::variable_of;
pub use file::{ConfigError, layered};
pub use headers::{MetadataHeader, address, headers};
pub use http::{HttpConfig, Role};
pub use limits::{InputLimits, LimitsConfig, RowOrder};
pub use log::LogConfig;
pub use prices::read_prices;
pub use project_limits::read_project_limits;
pub use remote::{ProfileError, RemoteServer, ServerArgs};
pub use responses::{Dialect, ResponsesConfig};
pub use secret::{Secret, shown_url, without_credentials};
pub use storage::StorageConfig;
pub use tools::{AgentConfig, HttpToolConfig, McpServerConfig, ToolsConfig};
pub use upstream::{ExhaustedQuota, StreamMode, UnknownModels, UpstreamConfig};
pub use upstreams::UpstreamTable;
pub use webhooks::{WebhookTable, WebhooksConfig};
pub use worker::{ConcurrencyControl, WorkerConfig};

/// All settings of `batchwright serve`.
#[derive(Args, Debug, Clone)]
pub struct ServeConfig {
    #[command(flatten)]
    /// The address and how the program starts and stops.
    pub http: HttpConfig,
    #[command(flatten)]
    /// The database and the blob store.
    pub storage: StorageConfig,
    #[command(flatten)]
    /// The inference server.
    pub upstream: UpstreamConfig,
    #[command(flatten)]
    /// How rows are run.
    pub worker: WorkerConfig,
    #[command(flatten)]
    /// How rows for `/v1/responses` are run.
    pub responses: ResponsesConfig,
    #[command(flatten)]
    /// The limits of files and batches.
    pub limits: LimitsConfig,
    #[command(flatten)]
    /// Who is told how batches end.
    pub webhooks: WebhooksConfig,
    #[command(flatten)]
    /// The log.
    pub log: LogConfig,
}

/// The defaults of the flags. The environment and the settings file are not read.
impl Default for ServeConfig {
    fn default() -> Self {
        let matches = Self::augment_args(Command::new("serve")).get_matches_from(["serve"]);
        Self::from_arg_matches(&matches).expect("every setting has a default or may be absent")
    }
}

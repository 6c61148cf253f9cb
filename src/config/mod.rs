//! Settings: read once, checked once, passed down by section.
//!
//! A setting is one field with one doc comment, which is its help text and its line in the README. It is taken from,
//! in falling order: the flag, the environment variable `BATCHWRIGHT_…`, the file named by `--config`, the default.

mod file;
mod http;
mod limits;
mod log;
mod responses;
mod secret;
mod storage;
mod tools;
mod upstream;
mod worker;

use clap::{Args, Command, FromArgMatches as _};

pub use file::{ConfigError, layered};
pub use http::{HttpConfig, Role};
pub use limits::LimitsConfig;
pub use log::LogConfig;
pub use responses::{Dialect, ResponsesConfig};
pub use secret::{Secret, shown_url, without_credentials};
pub use storage::StorageConfig;
pub use tools::{AgentConfig, HttpToolConfig, McpServerConfig, ToolsConfig};
pub use upstream::UpstreamConfig;
pub use worker::WorkerConfig;

/// Everything `batchwright serve` can be told.
#[derive(Args, Debug, Clone)]
pub struct ServeConfig {
    #[command(flatten)]
    /// The address and how the program starts and stops.
    pub http: HttpConfig,
    #[command(flatten)]
    /// Where things are kept.
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
    /// What files and batches must keep to.
    pub limits: LimitsConfig,
    #[command(flatten)]
    /// What is logged.
    pub log: LogConfig,
}

/// The defaults of the flags. Neither the environment nor a file is looked at.
impl Default for ServeConfig {
    fn default() -> Self {
        let matches = Self::augment_args(Command::new("serve")).get_matches_from(["serve"]);
        Self::from_arg_matches(&matches).expect("every setting has a default or may be absent")
    }
}

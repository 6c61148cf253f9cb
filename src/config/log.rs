//! The log.

use clap::Args;

/// The log.
#[derive(Args, Debug, Clone)]
pub struct LogConfig {
    /// Log lines to show: a level, or levels by module such as `info,batchwright::daemon=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
}

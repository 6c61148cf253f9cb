//! The address, and how the program starts and stops.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// The address, and how the program starts and stops.
#[derive(Args, Debug, Clone)]
pub struct HttpConfig {
    /// Address and port to listen on. Clients use `http://ADDRESS/v1` as their base URL.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// What this process does: `api` answers clients, `worker` runs rows, `all` does both.
    #[arg(long, value_enum, default_value = "all")]
    pub role: Role,

    /// How long calls in flight may go on after the first SIGTERM or Ctrl-C. A second one ends the program at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Answers clients and runs rows.
    All,
    /// Answers clients.
    Api,
    /// Runs rows.
    Worker,
}

impl Role {
    /// Whether the process answers clients.
    #[must_use]
    pub fn serves_api(self) -> bool {
        matches!(self, Self::All | Self::Api)
    }

    /// Whether the process runs rows.
    #[must_use]
    pub fn runs_rows(self) -> bool {
        matches!(self, Self::All | Self::Worker)
    }
}

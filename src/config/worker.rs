//! How rows are run.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::durations::duration;
use crate::domain::outcome::HttpResponse;
use crate::domain::retry::{RetryPolicy, ShouldRetry, may_pass};

/// How rows are run.
#[derive(Args, Debug, Clone)]
pub struct WorkerConfig {
    /// The most calls to the inference server that run at once. How many do is found out from its answers: see
    /// `--concurrency`.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_concurrency: u32,

    /// How many calls run at once. `auto` finds, for each model, how many keep the server busy without waiting in it,
    /// up to `--max-concurrency`; `fixed` is always `--max-concurrency`, unless the server refuses calls.
    #[arg(long, value_name = "CONTROL", value_enum, default_value_t = ConcurrencyControl::Auto)]
    pub concurrency: ConcurrencyControl,

    /// Calls to the inference server that all workers together may run at once. Each living worker has an even share of
    /// it, but never more than its own `--max-concurrency`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub global_max_concurrency: Option<u32>,

    /// Let the metadata of a batch ask for a priority among the batches of its owner: `"priority": "high"` or `"low"`.
    /// A batch has four times as many calls as one of the next lower priority.
    #[arg(long)]
    pub batch_priorities: bool,

    /// How long a worker may fail to reach the database before others take over its rows. Lower it for faster
    /// takeovers; raise it if the database or the network is often slow.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lease)]
    pub lease: Duration,

    /// Attempts after the first, for temporary failures of one request: broken connections, timeouts, and the statuses
    /// 408, 409, 425 and 500 to 599, but not 501 and 505. A server that takes no calls costs no attempt.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub max_retries: u32,

    /// Further statuses to retry, such as 404 for a server that loads models on demand.
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(400..=599))]
    pub retry_statuses: Vec<u16>,

    /// Pause a batch whose first rows all failed alike, with the same code and status, once there are so many. Its
    /// owner can resume it. With 0, such a batch goes on.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub pause_after_alike: u32,

    /// Hosts of audio files that rows may name by `file_url`, such as `files.example.com`, in the form of
    /// `--mcp-allowed-hosts`. Data URLs need none.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub file_url_hosts: Vec<String>,
}

/// How the number of calls at once is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConcurrencyControl {
    /// Found out from the server's answers.
    Auto,
    /// Always the most, unless the server refuses calls.
    Fixed,
}

const BASE_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(60);

impl WorkerConfig {
    /// When failed requests are retried.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy { max_retries: self.max_retries, base_delay: BASE_DELAY, max_delay: MAX_DELAY }
    }

    /// Which responses are retried.
    #[must_use]
    pub fn should_retry(&self) -> ShouldRetry {
        let further = self.retry_statuses.clone();
        Arc::new(move |response: &HttpResponse| {
            may_pass(response.status) || response.status == 409 || further.contains(&response.status)
        })
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    let allowed = Duration::from_secs(2)..=Duration::from_secs(3600);
    if allowed.contains(&lease) { Ok(lease) } else { Err("a lease may be 2s to 1h long".to_owned()) }
}

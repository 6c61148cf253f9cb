//! A scenario: what a simulated server with continuous batching is like, and when that changes.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::batching::{BatchingSettings, CallStatus};
use crate::config::{read_duration, read_optional_duration};

/// A server, and how it changes. Every member may be left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Requests that run at once.
    pub slots: usize,
    /// Whether requests beyond the slots are answered 429. Otherwise they wait.
    pub refuse: bool,
    /// `Retry-After` of refusals.
    #[serde(deserialize_with = "read_optional_duration")]
    pub retry_after: Option<Duration>,
    /// Tokens in the KV cache. When it is full, the youngest request is computed again later.
    pub kv_tokens: Option<usize>,
    /// How long a token takes, and what each request that runs adds to it.
    #[serde(deserialize_with = "read_duration")]
    pub token_time: Duration,
    /// See `token_time`.
    #[serde(deserialize_with = "read_duration")]
    pub token_time_per_request: Duration,
    /// Prompt tokens that the server reads in a second. Meanwhile no token is made.
    pub prompt_tokens_per_second: f64,
    /// Tokens of prompts that the server remembers, so that it need not read a beginning again that it knows.
    pub prefix_cache_tokens: usize,
    /// The median and the spread (sigma) of the lognormal lengths of answers, in tokens.
    pub output_tokens: (f64, f64),
    /// Requests that may come in a second.
    pub requests_per_second: Option<f64>,
    /// Tokens of prompts and answers (by `max_tokens`, or 512) that may come in a minute.
    pub tokens_per_minute: Option<f64>,
    /// Whether answers state what is left of those tokens, in `x-ratelimit-*` headers.
    pub rate_limit_headers: bool,
    /// What changes, and when.
    pub changes: Vec<ScenarioChange>,
}

/// A change of the server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioChange {
    /// How long after the start.
    #[serde(deserialize_with = "read_duration")]
    pub after: Duration,
    /// Requests that run at once from then on.
    #[serde(default)]
    pub slots: Option<usize>,
    /// The status of every request from then on, those that run among them; 200 if the server works again.
    #[serde(default)]
    pub status: Option<u16>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            slots: 64,
            refuse: false,
            retry_after: None,
            kv_tokens: None,
            token_time: Duration::from_millis(8),
            token_time_per_request: Duration::from_micros(100),
            prompt_tokens_per_second: 30_000.0,
            prefix_cache_tokens: 0,
            output_tokens: (100.0, 0.9),
            requests_per_second: None,
            tokens_per_minute: None,
            rate_limit_headers: false,
            changes: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario in TOML.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let scenario: Self = toml::from_str(&text).map_err(|error| error.to_string())?;
        let slots = scenario.changes.iter().filter_map(|change| change.slots).chain([scenario.slots]);
        if slots.min() == Some(0) { Err("slots must be at least 1".to_owned()) } else { Ok(scenario) }
    }

    pub(super) fn batching(&self) -> BatchingSettings {
        #[expect(clippy::cast_precision_loss, reason = "not beyond thousands of millions")]
        let kv = self.kv_tokens.map_or(f64::INFINITY, |tokens| tokens as f64);
        BatchingSettings {
            slots: self.slots,
            kv,
            base: self.token_time.as_secs_f64().max(1e-6),
            per_sequence: self.token_time_per_request.as_secs_f64(),
            prefill: self.prompt_tokens_per_second.max(1.0),
            refuses: self.refuse,
            retry_after: self.retry_after.map(|pause| pause.as_secs_f64()),
            calls_per_second: self.requests_per_second,
            tokens_per_minute: self.tokens_per_minute,
            has_headers: self.rate_limit_headers,
            status_when_down: CallStatus::Unavailable,
            ..BatchingSettings::default()
        }
    }
}

//! The inference server.

use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::durations::time_of_call;
use super::{Certificates, MetadataHeader, Secret, UpstreamTable};

/// The inference server.
#[derive(Args, Debug, Clone)]
pub struct UpstreamConfig {
    /// Base URL of the inference server, with its /v1, such as `http://127.0.0.1:8000/v1`. A user name and a password
    /// in it are sent as basic authentication.
    // A `Secret`, and not a URL that clap parses: its errors would show the value.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub upstream: Option<Secret>,

    /// Key to send to the inference server, as a bearer token.
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub upstream_key: Option<Secret>,

    /// PEM file of certificates to trust besides those of the system, for upstreams, tools and MCP servers of the
    /// settings. A server's own self-signed certificate may be one of them.
    #[arg(long, value_name = "FILE", value_parser = |path: &str| Certificates::read(Path::new(path)))]
    pub upstream_ca: Option<Certificates>,

    /// How long one call may take, from connecting to the last byte.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time_of_call)]
    pub request_timeout: Duration,

    /// How long the inference server may send nothing in the middle of an answer.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time_of_call)]
    pub stall_timeout: Duration,

    /// Whether answers are streamed from the inference server, and put together here. `auto` streams once a call that
    /// took long was broken off, as proxies do with connections on which nothing happens.
    #[arg(long, value_name = "MODE", value_enum, default_value_t = StreamMode::Auto)]
    pub stream: StreamMode,

    /// Priority that each call for chat completions, completions or responses asks of the inference server, as the
    /// member `priority` of its body, unless the row has its own. vLLM serves the smallest number first; interactive
    /// requests have 0.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub body_priority: Option<i64>,

    /// Inputs of embeddings rows with the same parameters that are sent in one call. With 1, each row is a call of its
    /// own.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub merged_embeddings: u32,

    /// What becomes of a row if the inference server answers that the account has no quota left, or asks for a payment
    /// (402): `wait` until it is paid, or `fail` the row with that answer.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = ExhaustedQuota::Wait)]
    pub exhausted_quota: ExhaustedQuota,

    /// Keys of the metadata of batches that calls to the inference server carry as headers, each as
    /// `x-batchwright-metadata-KEY`.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub metadata_headers: Vec<MetadataHeader>,

    /// `[[upstreams]]`: several inference servers, instead of the one above.
    #[arg(skip)]
    pub upstreams: Vec<UpstreamTable>,

    /// What becomes of a batch with a model that no upstream has: `wait` until one has it, or `refuse` the batch with
    /// the error `model_not_found`.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = UnknownModels::Wait)]
    pub unknown_models: UnknownModels,
}

/// Whether answers are streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamMode {
    /// Once a call that took long was broken off.
    Auto,
    /// No answer.
    Never,
    /// Every answer that can be.
    Always,
}

/// What becomes of a batch with a model that no upstream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnknownModels {
    /// Its rows wait until an upstream has the model, or their window closes.
    Wait,
    /// The batch fails.
    Refuse,
}

/// What becomes of a row for which the account has no quota left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExhaustedQuota {
    /// It waits until it is paid, or its window closes.
    Wait,
    /// It fails.
    Fail,
}

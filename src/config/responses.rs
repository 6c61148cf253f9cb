//! How rows for `/v1/responses` are run.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::ToolsConfig;
use super::durations::{duration, time_of_call};
use crate::domain::response::Limits;

/// How rows for `/v1/responses` are run.
#[derive(Args, Debug, Clone)]
pub struct ResponsesConfig {
    /// Whether the inference server has `/v1/responses` itself (`native`) or only `/v1/chat/completions` (`chat`), to
    /// which rows are then translated. `auto` finds out from the answers, and asks again after five minutes.
    #[arg(long, value_enum, default_value = "auto")]
    pub upstream_responses: Dialect,

    /// Model calls that one response may make, and each agent within it.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_iterations: u32,

    /// How deep agents may call agents.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub max_depth: u32,

    /// Tool calls that one response may make, including those of its agents. A row's own `max_tool_calls` can only
    /// lower it.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_tool_calls: u32,

    /// How long the calls of one response may take together. Pauses before retries do not count.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = time_of_call)]
    pub max_response_time: Duration,

    /// Tokens that all calls of one response may use together.
    #[arg(long, value_name = "N")]
    pub max_response_tokens: Option<u64>,

    /// Size that all tool outputs of one response may have together.
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub max_tool_output: ByteSize,

    /// Hosts of MCP servers that rows may name by `server_url`, such as `mcp.example.com`, `*.example.com` or
    /// `mcp.example.com:8443`. Private addresses are refused even then, unless the entry itself is such an address.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub mcp_allowed_hosts: Vec<String>,

    /// Check answers against the JSON schema of their rows, and ask the model to correct answers that do not match. A
    /// batch can override this with `"ensure_schema": "true"` or `"false"` in its metadata.
    #[arg(long)]
    pub ensure_schema: bool,

    /// How often the model is asked to correct an answer that does not match.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub schema_retries: u32,

    /// How long the steps and attempts of rows are kept after their batch has ended.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
    pub steps_retention: Duration,

    /// The tools of the settings file.
    #[arg(skip)]
    pub tools: ToolsConfig,
}

/// The API that rows for `/v1/responses` are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `/v1/responses`, unless the upstream turns out not to have it.
    Auto,
    /// `/v1/responses`.
    Native,
    /// `/v1/chat/completions`.
    Chat,
}

impl ResponsesConfig {
    /// The limits of the steps of a row. A row may ask for lower ones.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            iterations: self.max_iterations,
            depth: self.max_depth,
            tool_calls: self.max_tool_calls,
            time: self.max_response_time,
            tokens: self.max_response_tokens,
            output_tokens: None,
            tool_output_bytes: self.max_tool_output.as_u64(),
        }
    }
}

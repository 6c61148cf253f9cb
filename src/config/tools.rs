//! Tools that models may call and this program runs: the tables of the settings file.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

use super::durations::read_time_of_call;
use super::{ConfigError, Secret, file};

/// The tools of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ToolsConfig {
    /// `[[tools]]`: functions behind a URL.
    pub tools: Vec<HttpToolConfig>,
    /// `[[mcp_servers]]`.
    pub mcp_servers: Vec<McpServerConfig>,
    /// `[[agents]]`: functions that are models with tools of their own.
    pub agents: Vec<AgentConfig>,
}

/// The tables of a settings file that are about tools.
pub(super) const SECTIONS: [&str; 3] = ["tools", "mcp_servers", "agents"];

/// `[[tools]]`: a function that is called by posting its arguments to a URL.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpToolConfig {
    /// The function's name, by which rows ask for it.
    pub name: String,
    /// The description for the model, unless the row gives another.
    #[serde(default)]
    pub description: String,
    /// The JSON schema of its arguments; any object if absent.
    #[serde(default = "any_object")]
    pub parameters: toml::Value,
    /// The URL that the arguments are posted to.
    #[serde(deserialize_with = "parsed")]
    pub url: url::Url,
    /// Headers to send. `${NAME}` stands for the environment variable of that name.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How long one call may take.
    #[serde(default = "default_timeout", deserialize_with = "read_time_of_call")]
    pub timeout: Duration,
    /// Calls that may be under way at once in this process.
    #[serde(default = "default_concurrency")]
    pub max_concurrency: u32,
    /// Calls after the first, for temporary failures.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Bytes one output may have.
    #[serde(default = "default_output_bytes", deserialize_with = "parsed")]
    pub max_output_bytes: ByteSize,
    /// Whether the same arguments have the same output for as long as the process runs.
    #[serde(default)]
    pub cache: bool,
}

/// `[[mcp_servers]]`: a server of tools, over streamable HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct McpServerConfig {
    /// The `server_label` by which rows ask for it.
    pub label: String,
    /// Its URL.
    #[serde(deserialize_with = "parsed")]
    pub url: url::Url,
    /// Headers to send. `${NAME}` stands for the environment variable of that name.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The tools that rows may use; all if absent.
    #[serde(default)]
    pub allowed_tools: Option<Vec<String>>,
    /// How long one call may take.
    #[serde(default = "default_mcp_timeout", deserialize_with = "read_time_of_call")]
    pub timeout: Duration,
    /// Bytes one output may have.
    #[serde(default = "default_output_bytes", deserialize_with = "parsed")]
    pub max_output_bytes: ByteSize,
}

/// `[[agents]]`: a function that is answered by a model, which may call tools of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The function's name, by which rows and other agents ask for it.
    pub name: String,
    /// The description for the model that calls it, unless the row gives another.
    #[serde(default)]
    pub description: String,
    /// The JSON schema of its arguments; by default an object with a text `input`.
    #[serde(default)]
    pub parameters: Option<toml::Value>,
    /// The agent's model.
    pub model: String,
    /// The agent's instructions.
    pub instructions: String,
    /// Names of tools and agents that it may call.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Labels of MCP servers whose tools it may call.
    #[serde(default)]
    pub mcp_servers: Vec<String>,
}

impl ToolsConfig {
    /// Reads the tables of a settings file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        file::read_tables(path, &SECTIONS)
    }
}

fn any_object() -> toml::Value {
    toml::Value::Table(toml::Table::from_iter([("type".to_owned(), "object".into())]))
}

fn default_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_mcp_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_concurrency() -> u32 {
    16
}

fn default_retries() -> u32 {
    2
}

fn default_output_bytes() -> ByteSize {
    ByteSize::kib(256)
}

/// A value as it is written on a command line.
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

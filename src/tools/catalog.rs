//! The tools of the settings file, checked and ready to be called.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::ClientConfig;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::ToolError;
use super::http::{HttpTool, HttpToolSettings};
use super::mcp::{McpClient, McpServer};
use crate::config::{AgentConfig, HttpToolConfig, McpServerConfig, ToolsConfig, address};
use crate::domain::response::raw;
use crate::domain::schema::Schema;
use crate::net::{AllowedHosts, ClientSettings, proxy_of};

/// Bounds of MCP servers that come with rows.
const ROW_SERVER_TIMEOUT: Duration = Duration::from_secs(60);
const ROW_SERVER_OUTPUT: usize = 256 << 10;
/// How many of them are cached.
const ROW_SERVERS: usize = 64;

/// Every tool that rows can ask for by its name or label.
pub struct Catalog {
    functions: HashMap<String, ConfiguredFunction>,
    servers: HashMap<String, Arc<McpClient>>,
    /// The hosts of servers that rows may name. `None` if such tools are left to the upstream.
    row_hosts: Option<Arc<AllowedHosts>>,
    /// Clients for servers that rows name. Most rows of a batch name the same server.
    row_servers: Cache<String, Arc<McpClient>>,
}

/// A function that is served here.
pub(super) struct ConfiguredFunction {
    pub(super) handler: FunctionHandler,
    pub(super) description: String,
    pub(super) parameters: Box<RawValue>,
}

/// What answers a function of the settings file.
#[derive(Clone)]
pub(super) enum FunctionHandler {
    Http(Arc<HttpTool>),
    Agent(Arc<Agent>),
}

/// A function that is answered by a model with tools of its own.
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// The instructions to its model.
    pub instructions: String,
    /// The schema of its arguments.
    pub schema: Schema,
    /// Its tools, as a row would ask for them.
    pub tools: Vec<Box<RawValue>>,
}

impl Catalog {
    /// The tools of a settings file, which are called with this TLS if it is another than the system's.
    ///
    /// # Errors
    /// Which tool is wrong, and why.
    pub fn new(config: &ToolsConfig, allowed_hosts: &[String], tls: Option<&ClientConfig>) -> Result<Self, String> {
        let host = |text: &String| text.parse().map_err(|error| format!("--mcp-allowed-hosts '{text}': {error}"));
        let hosts: AllowedHosts = allowed_hosts.iter().map(host).collect::<Result<_, String>>()?;
        let mut catalog = Self {
            functions: HashMap::new(),
            servers: HashMap::new(),
            row_hosts: (!allowed_hosts.is_empty()).then(|| Arc::new(hosts)),
            row_servers: Cache::new(ROW_SERVERS),
        };
        for tool in &config.tools {
            let entry = http_tool(tool, tls).map_err(|error| format!("[[tools]] '{}': {error}", tool.name))?;
            catalog.add(&tool.name, entry)?;
        }
        for server in &config.mcp_servers {
            let client =
                mcp_server(server, tls).map_err(|error| format!("[[mcp_servers]] '{}': {error}", server.label))?;
            if catalog.servers.insert(server.label.clone(), Arc::new(client)).is_some() {
                return Err(format!("[[mcp_servers]] has the label '{}' twice", server.label));
            }
        }
        for agent in &config.agents {
            let entry = agent_tool(agent).map_err(|error| format!("[[agents]] '{}': {error}", agent.name))?;
            catalog.add(&agent.name, entry)?;
        }
        for agent in &config.agents {
            let unknown = agent.tools.iter().find(|name| !catalog.functions.contains_key(*name));
            let unknown = unknown.or(agent.mcp_servers.iter().find(|label| !catalog.servers.contains_key(*label)));
            if let Some(unknown) = unknown {
                return Err(format!(
                    "[[agents]] '{}' names '{unknown}', which is not in the settings file",
                    agent.name
                ));
            }
        }
        Ok(catalog)
    }

    fn add(&mut self, name: &str, entry: ConfiguredFunction) -> Result<(), String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_name) {
            return Err(format!("the function name '{name}' must be 1 to 64 letters, digits, '_' and '-'"));
        }
        match self.functions.insert(name.to_owned(), entry) {
            None => Ok(()),
            Some(_) => Err(format!("the function name '{name}' is given twice")),
        }
    }

    pub(super) fn function(&self, name: &str) -> Option<&ConfiguredFunction> {
        self.functions.get(name)
    }

    pub(super) fn server(&self, label: &str) -> Option<&Arc<McpClient>> {
        self.servers.get(label)
    }

    /// Whether rows may name MCP servers by URL at all.
    pub(super) fn takes_servers_of_rows(&self) -> bool {
        self.row_hosts.is_some()
    }

    /// A client for an MCP server that a row names.
    pub(super) fn server_of_row(&self, server: RowServer) -> Result<Arc<McpClient>, ToolError> {
        let RowServer { label, url, headers } = server;
        let known = format!("{label} {url} {}", spelled(&headers));
        self.row_servers.get_or_insert_with(&known, || {
            let server = McpServer {
                label,
                url,
                headers,
                tls: None,
                allowed_tools: None,
                timeout: ROW_SERVER_TIMEOUT,
                max_output_bytes: ROW_SERVER_OUTPUT,
                row_hosts: self.row_hosts.clone(),
            };
            McpClient::new(server).map(Arc::new)
        })
    }
}

/// Headers with their values, as part of a cache key; their own `Debug` hides the values.
fn spelled(headers: &HeaderMap) -> String {
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}:{:?}", value.as_bytes());
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// An MCP server as a row names it.
pub(super) struct RowServer {
    pub(super) label: String,
    pub(super) url: url::Url,
    pub(super) headers: HeaderMap,
}

fn schema(parameters: &toml::Value) -> Result<(Box<RawValue>, Schema), String> {
    let json = match parameters {
        toml::Value::String(json) => {
            RawValue::from_string(json.clone()).map_err(|error| format!("parameters: {error}"))?
        }
        table => to_raw_value(table).map_err(|error| format!("parameters: {error}"))?,
    };
    let schema = Schema::compile(json.get()).map_err(|error| format!("parameters: {error}"))?;
    Ok((json, schema))
}

fn http_tool(config: &HttpToolConfig, tls: Option<&ClientConfig>) -> Result<ConfiguredFunction, String> {
    let (parameters, schema) = schema(&config.parameters)?;
    let (url, headers) = address(&config.url, &config.headers)?;
    proxy_of(&url)?;
    let settings = HttpToolSettings {
        url,
        headers,
        schema,
        timeout: config.timeout,
        max_concurrency: config.max_concurrency.max(1),
        retries: config.retries,
        max_output_bytes: usize::try_from(config.max_output_bytes.as_u64()).unwrap_or(usize::MAX),
        cache: config.cache,
    };
    let client =
        ClientSettings { read_timeout: Some(config.timeout * 2), tls: tls.cloned(), ..ClientSettings::default() };
    let client = client.build().map_err(|error| error.to_string())?;
    let handler = FunctionHandler::Http(Arc::new(HttpTool::new(settings, client)));
    Ok(ConfiguredFunction { handler, description: config.description.clone(), parameters })
}

fn mcp_server(config: &McpServerConfig, tls: Option<&ClientConfig>) -> Result<McpClient, String> {
    let (url, headers) = address(&config.url, &config.headers)?;
    proxy_of(&url)?;
    let server = McpServer {
        label: config.label.clone(),
        url,
        headers,
        tls: tls.cloned(),
        allowed_tools: config.allowed_tools.clone(),
        timeout: config.timeout,
        max_output_bytes: usize::try_from(config.max_output_bytes.as_u64()).unwrap_or(usize::MAX),
        row_hosts: None,
    };
    McpClient::new(server).map_err(|error| error.to_string())
}

fn agent_tool(config: &AgentConfig) -> Result<ConfiguredFunction, String> {
    let input = || {
        let schema = json!({
            "type": "object", "properties": { "input": { "type": "string" } }, "required": ["input"],
            "additionalProperties": false,
        });
        toml::Value::String(schema.to_string())
    };
    let (parameters, schema) = schema(&config.parameters.clone().unwrap_or_else(input))?;
    let functions = config.tools.iter().map(|name| json!({ "type": "function", "name": name }));
    let servers = config
        .mcp_servers
        .iter()
        .map(|label| json!({ "type": "mcp", "server_label": label, "require_approval": "never" }));
    let agent = Agent {
        name: config.name.clone(),
        model: config.model.clone(),
        instructions: config.instructions.clone(),
        schema,
        tools: functions.chain(servers).map(|tool| raw(&tool)).collect(),
    };
    Ok(ConfiguredFunction {
        handler: FunctionHandler::Agent(Arc::new(agent)),
        description: config.description.clone(),
        parameters,
    })
}

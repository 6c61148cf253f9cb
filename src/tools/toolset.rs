//! The tools of one row: which of them are served here, and their definitions for the model.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ToolError;
use super::catalog::{Agent, Catalog, ConfiguredFunction, FunctionHandler, RowServer};
use super::http::HttpTool;
use super::mcp::{McpClient, McpTool};
use crate::config::headers;
use crate::domain::json_error::plainly;
use crate::domain::outcome::FailureReason;
use crate::domain::response::{Fields, McpFunction, McpList, mcp_function_name, raw};
use crate::domain::row::shown;

/// MCP servers of one row. Each may offer as many tools as one answer can have.
const MOST_SERVERS: usize = 32;

/// Bytes of all tools that they offer to one row. The row holds them twice.
const MOST_OFFERED: usize = 4 << 20;

/// The tools of one row, or of one agent.
#[derive(Default)]
pub struct Toolset {
    functions: HashMap<String, Function>,
    /// Bytes of the tools that MCP servers offered.
    offered: usize,
    /// The tools that MCP servers offered, in the order in which the row names the servers.
    pub lists: Vec<McpList>,
    /// The definitions for the model. Tools of MCP servers are functions.
    pub definitions: Vec<Box<RawValue>>,
}

/// What answers a function that a model calls.
#[derive(Clone)]
pub enum Function {
    /// A URL.
    Http(Arc<HttpTool>),
    /// A model with tools of its own.
    Agent(Arc<Agent>),
    /// A tool of an MCP server.
    Mcp(Arc<McpClient>, McpFunction),
    /// The client.
    Client,
}

impl Function {
    fn of(handler: &FunctionHandler) -> Self {
        match handler {
            FunctionHandler::Http(tool) => Self::Http(tool.clone()),
            FunctionHandler::Agent(agent) => Self::Agent(agent.clone()),
        }
    }
}

/// Why a row's toolset cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToolset {
    /// The row asks for tools that it cannot have.
    Unsupported(String),
    /// An MCP server does not answer, or not in time. A retry can help.
    Unreachable(String),
}

impl From<NoToolset> for FailureReason {
    fn from(why: NoToolset) -> Self {
        match why {
            NoToolset::Unsupported(text) => Self::Unsupported(text),
            NoToolset::Unreachable(text) => Self::ToolServerUnreachable(text),
        }
    }
}

/// The members of a row's tool that tell whether it is served here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestedTool {
    r#type: Option<String>,
    name: Option<String>,
    server_label: Option<String>,
    server_url: Option<String>,
}

/// The members of an MCP tool that is served here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerTool {
    headers: Option<BTreeMap<String, String>>,
    authorization: Option<String>,
    allowed_tools: Option<Allowed>,
    require_approval: Option<Approval>,
}

impl ServerTool {
    fn read(raw: &RawValue, label: &str) -> Result<Self, NoToolset> {
        serde_json::from_str(raw.get()).map_err(|error| {
            NoToolset::Unsupported(format!(
                "The tool with the 'server_label' '{}' cannot be read: {}.",
                shown(label),
                plainly(&error)
            ))
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Allowed {
    Names(Vec<String>),
    Filter(Filter),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Approval {
    Word(String),
    ByTool { always: Option<Filter>, never: Option<Filter> },
}

/// A filter for tools of a server. A tool must match all members that are given.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Filter {
    tool_names: Option<Vec<String>>,
    read_only: Option<bool>,
}

impl Filter {
    fn matches(&self, tool: &McpTool) -> bool {
        self.tool_names.as_ref().is_none_or(|names| names.contains(&tool.name))
            && self.read_only.is_none_or(|read_only| read_only == is_read_only(tool))
    }
}

/// Whether the server declares its tool as read-only.
fn is_read_only(tool: &McpTool) -> bool {
    let hints = tool.annotations.as_ref().and_then(|hints| Fields::read(hints.get().as_bytes()).ok());
    hints.and_then(|hints| hints.get("readOnlyHint").ok().flatten()).unwrap_or(false)
}

impl Catalog {
    /// Whether any tool of a request is served here.
    ///
    /// # Errors
    /// What is wrong with the request's tools.
    pub fn serves(&self, request: &Fields) -> Result<bool, NoToolset> {
        Ok(read(request)?.iter().any(|(_, tool)| self.is_served(tool)))
    }

    /// Whether any tool of a request is an MCP server that is served here: its list of tools must then be requested.
    #[must_use]
    pub fn asks_servers(&self, request: &Fields) -> bool {
        let is_server = |tool: &RequestedTool| tool.kind() == "mcp" && self.is_served(tool);
        read(request).is_ok_and(|tools| tools.iter().any(|(_, tool)| is_server(tool)))
    }

    fn is_served(&self, tool: &RequestedTool) -> bool {
        match tool.kind() {
            "function" => self.function(tool.name()).is_some(),
            "mcp" => match &tool.server_url {
                // Without allowed hosts, servers that rows name are left to the upstream.
                Some(_) => self.takes_servers_of_rows(),
                None => self.server(tool.label()).is_some(),
            },
            _ => false,
        }
    }

    /// Makes the toolset of a request. The tools of its MCP servers are listed by the servers.
    ///
    /// # Errors
    /// Why the request cannot have them.
    pub async fn open(&self, request: &Fields) -> Result<Toolset, NoToolset> {
        let mut toolset = Toolset::default();
        for (raw, tool) in read(request)? {
            match (tool.kind(), self.is_served(&tool)) {
                ("function", false) => {
                    toolset.add(tool.name(), Function::Client)?;
                    toolset.definitions.push(raw);
                }
                (_, false) => toolset.definitions.push(raw),
                ("function", true) => {
                    let entry = self.function(tool.name()).expect("it is served");
                    toolset.add(tool.name(), Function::of(&entry.handler))?;
                    toolset.definitions.push(defined(&raw, entry));
                }
                (_, true) if toolset.lists.len() == MOST_SERVERS => {
                    return Err(NoToolset::Unsupported(format!("The row names more than {MOST_SERVERS} MCP servers.")));
                }
                (_, true) => {
                    let server = ServerTool::read(&raw, tool.label())?;
                    let client = self.client(&tool, &server)?;
                    toolset.add_server(&tool, &server, client).await?;
                }
            }
        }
        Ok(toolset)
    }

    fn client(&self, tool: &RequestedTool, server: &ServerTool) -> Result<Arc<McpClient>, NoToolset> {
        let label = shown(tool.label());
        let Some(url) = &tool.server_url else {
            return Ok(self.server(tool.label()).expect("it is served").clone());
        };
        let unsupported = |why: String| NoToolset::Unsupported(why);
        let url = url::Url::parse(url)
            .map_err(|error| unsupported(format!("The 'server_url' of MCP server '{label}' is no URL: {error}.")))?;
        let mut texts = server.headers.clone().unwrap_or_default();
        if let Some(token) = &server.authorization {
            texts.insert("Authorization".to_owned(), format!("Bearer {token}"));
        }
        let headers = headers(texts.iter().map(|(name, value)| (name, value.clone())))
            .map_err(|error| unsupported(format!("The headers of MCP server '{label}' cannot be sent: {error}.")))?;
        let server = RowServer { label: tool.label().to_owned(), url, headers };
        let cannot = |error| unsupported(format!("MCP server '{label}' cannot be used: {error}"));
        self.server_of_row(server).map_err(cannot)
    }
}

impl Toolset {
    /// What answers the function with this name; `None` if the toolset has no such function.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// The MCP tool behind a function.
    #[must_use]
    pub fn mcp(&self, name: &str) -> Option<McpFunction> {
        match self.functions.get(name)? {
            Function::Mcp(_, function) => Some(function.clone()),
            _ => None,
        }
    }

    /// The functions that stand for the tools of an MCP server.
    #[must_use]
    pub fn functions_of(&self, label: &str) -> Vec<&str> {
        let is_its = |function: &Function| matches!(function, Function::Mcp(_, function) if function.label == label);
        let mut names: Vec<_> =
            self.functions.iter().filter(|(_, function)| is_its(function)).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The message to a model that called a function which the toolset does not have.
    #[must_use]
    pub fn unknown(&self, name: &str) -> String {
        let mut known: Vec<&str> = self.functions.keys().map(String::as_str).collect();
        known.sort_unstable();
        format!("there is no function '{name}'; there are: {}", known.join(", "))
    }

    fn add(&mut self, name: &str, function: Function) -> Result<(), NoToolset> {
        match self.functions.insert(name.to_owned(), function) {
            None => Ok(()),
            Some(_) => {
                Err(NoToolset::Unsupported(format!("The row has two tools with the function name '{}'.", shown(name))))
            }
        }
    }

    async fn add_server(
        &mut self,
        tool: &RequestedTool,
        server: &ServerTool,
        client: Arc<McpClient>,
    ) -> Result<(), NoToolset> {
        let label = tool.label();
        let offered = client.tools().await.map_err(|error| {
            let text = format!("The tools of MCP server '{}' cannot be listed: {error}", shown(label));
            match error {
                ToolError::Unreachable(_) | ToolError::TimedOut(_) => NoToolset::Unreachable(text),
                _ => NoToolset::Unsupported(text),
            }
        })?;
        let allowed = || offered.iter().filter(|offer| server.allows(offer));
        self.offered += allowed().map(McpTool::bytes).sum::<usize>();
        if self.offered > MOST_OFFERED {
            return Err(NoToolset::Unsupported(format!(
                "The MCP servers of the row offer more than {MOST_OFFERED} bytes of tools; say in 'allowed_tools' \
                 which are needed."
            )));
        }
        let mut listed = Vec::new();
        for offer in allowed() {
            let function = McpFunction {
                label: label.to_owned(),
                tool: offer.name.clone(),
                needs_approval: server.needs_approval(offer, tool.server_url.is_some()),
            };
            let name = mcp_function_name(label, &offer.name);
            self.definitions.push(as_function(&name, offer));
            self.add(&name, Function::Mcp(client.clone(), function))?;
            listed.push(raw(offer));
        }
        self.lists.push(McpList { label: label.to_owned(), tools: listed });
        Ok(())
    }
}

impl RequestedTool {
    fn kind(&self) -> &str {
        self.r#type.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn label(&self) -> &str {
        self.server_label.as_deref().unwrap_or_default()
    }
}

impl ServerTool {
    fn allows(&self, tool: &McpTool) -> bool {
        match &self.allowed_tools {
            None => true,
            Some(Allowed::Names(names)) => names.contains(&tool.name),
            Some(Allowed::Filter(filter)) => filter.matches(tool),
        }
    }

    /// Without `require_approval`, calls to servers that the row gives need approval (OpenAI's default); calls to
    /// configured servers do not.
    fn needs_approval(&self, tool: &McpTool, is_row_given: bool) -> bool {
        let has = |filter: &Option<Filter>| filter.as_ref().is_some_and(|filter| filter.matches(tool));
        match &self.require_approval {
            None => is_row_given,
            Some(Approval::Word(word)) => word != "never",
            Some(Approval::ByTool { always, never }) => has(always) || !has(never),
        }
    }
}

fn read(request: &Fields) -> Result<Vec<(Box<RawValue>, RequestedTool)>, NoToolset> {
    let wrong = |at: usize, error: &serde_json::Error| {
        NoToolset::Unsupported(format!("'tools[{at}]' is not a tool: {}.", plainly(error)))
    };
    let tools: Option<Vec<Box<RawValue>>> = request
        .get("tools")
        .map_err(|error| NoToolset::Unsupported(format!("'tools' is not a list: {}.", plainly(&error))))?;
    let read = |(at, raw): (usize, Box<RawValue>)| match serde_json::from_str::<RequestedTool>(raw.get()) {
        Ok(tool) => Ok((raw, tool)),
        Err(error) => Err(wrong(at, &error)),
    };
    tools.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// The row's definition of a function, completed from the settings file.
fn defined(tool: &RawValue, entry: &ConfiguredFunction) -> Box<RawValue> {
    let mut fields = Fields::read(tool.get().as_bytes()).expect("it was read before");
    if fields.raw("description").is_none() && !entry.description.is_empty() {
        fields.set("description", &entry.description);
    }
    if fields.raw("parameters").is_none() {
        fields.set("parameters", &entry.parameters);
        // The schemas of the settings file need not follow the rules of the strict mode.
        fields.set("strict", &false);
    }
    raw(&fields)
}

fn as_function(name: &str, tool: &McpTool) -> Box<RawValue> {
    let mut fields = Fields::default();
    fields.set("type", "function");
    fields.set("name", name);
    fields.set("description", &tool.description.as_deref().map_or(Value::Null, |text| json!(text)));
    fields.set("parameters", &tool.input_schema);
    fields.set("strict", &false);
    raw(&fields)
}

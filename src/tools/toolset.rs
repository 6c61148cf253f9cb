//! The tools one row asks for: which of them are served here, and how the model is told of all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ToolError;
use super::catalog::{Agent, Catalog, ConfiguredFunction, FunctionHandler, RowServer, headers};
use super::http::HttpTool;
use super::mcp::{McpClient, McpTool};
use crate::domain::json_error::plainly;
use crate::domain::outcome::FailureReason;
use crate::domain::response::{Fields, McpFunction, McpList, mcp_function_name, raw};
use crate::domain::row::shown;

/// MCP servers of one row: each may offer as much as one answer can have.
const MOST_SERVERS: usize = 32;

/// Bytes of all that they offer to one row, which holds it twice.
const MOST_OFFERED: usize = 4 << 20;

/// The tools of one row, or of one agent.
#[derive(Default)]
pub struct Toolset {
    functions: HashMap<String, Function>,
    /// Bytes of what MCP servers offered.
    offered: usize,
    /// What MCP servers offered, in the order in which the row names them.
    pub lists: Vec<McpList>,
    /// The tools as the model is told of them: those of MCP servers as functions.
    pub definitions: Vec<Box<RawValue>>,
}

/// Who answers a function that a model asks for.
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

/// Why a row has no tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToolset {
    /// It asks for what it cannot have.
    Unsupported(String),
    /// An MCP server does not answer, which may pass.
    Unreachable(String),
}

impl From<NoToolset> for FailureReason {
    fn from(why: NoToolset) -> Self {
        match why {
            NoToolset::Unsupported(text) => Self::Unsupported(text),
            NoToolset::Unreachable(text) => Self::Network(text),
        }
    }
}

/// What is read of a tool in a row to tell whether it is served here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestedTool {
    r#type: Option<String>,
    name: Option<String>,
    server_label: Option<String>,
    server_url: Option<String>,
}

/// What is read of an MCP server that is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ServerTool {
    headers: Option<BTreeMap<String, String>>,
    authorization: Option<String>,
    allowed_tools: Option<Allowed>,
    require_approval: Option<Approval>,
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

/// Which tools of a server are meant: those that match all it says.
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

/// Whether a server says of its tool that it changes nothing.
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

    /// Whether any of them is an MCP server, which has to be asked what it offers.
    #[must_use]
    pub fn asks_servers(&self, request: &Fields) -> bool {
        let is_server = |tool: &RequestedTool| tool.kind() == "mcp" && self.is_served(tool);
        read(request).is_ok_and(|tools| tools.iter().any(|(_, tool)| is_server(tool)))
    }

    fn is_served(&self, tool: &RequestedTool) -> bool {
        match tool.kind() {
            "function" => self.function(tool.name()).is_some(),
            "mcp" => match &tool.server_url {
                // Without hosts that rows may name, servers of rows are the upstream's affair.
                Some(_) => self.takes_servers_of_rows(),
                None => self.server(tool.label()).is_some(),
            },
            _ => false,
        }
    }

    /// The tools a request asks for. MCP servers are asked what they offer.
    ///
    /// # Errors
    /// Why the request cannot have them.
    pub async fn open(&self, request: &Fields) -> Result<Toolset, NoToolset> {
        let mut toolset = Toolset::default();
        for (raw, tool) in read(request)? {
            if !self.is_served(&tool) {
                if tool.kind() == "function" {
                    toolset.add(tool.name(), Function::Client)?;
                }
                toolset.definitions.push(raw);
            } else if tool.kind() == "function" {
                let entry = self.function(tool.name()).expect("it is served");
                let function = match &entry.handler {
                    FunctionHandler::Http(tool) => Function::Http(tool.clone()),
                    FunctionHandler::Agent(agent) => Function::Agent(agent.clone()),
                };
                toolset.add(tool.name(), function)?;
                toolset.definitions.push(defined(&raw, entry));
            } else if toolset.lists.len() == MOST_SERVERS {
                return Err(NoToolset::Unsupported(format!("The row names more than {MOST_SERVERS} MCP servers.")));
            } else {
                let label = tool.label();
                let server: ServerTool = serde_json::from_str(raw.get()).map_err(|error| {
                    NoToolset::Unsupported(format!(
                        "The tool with the 'server_label' '{}' cannot be read: {}.",
                        shown(label),
                        plainly(&error)
                    ))
                })?;
                let client = self.client(&tool, &server)?;
                toolset.add_server(&tool, &server, client).await?;
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
    /// Who answers the function of a name; `None` for one that the model has made up.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// The tool of an MCP server behind a function.
    #[must_use]
    pub fn mcp(&self, name: &str) -> Option<McpFunction> {
        match self.functions.get(name)? {
            Function::Mcp(_, function) => Some(function.clone()),
            _ => None,
        }
    }

    /// The functions behind which the tools of an MCP server are.
    #[must_use]
    pub fn functions_of(&self, label: &str) -> Vec<&str> {
        let is_its = |function: &Function| matches!(function, Function::Mcp(_, function) if function.label == label);
        let mut names: Vec<_> =
            self.functions.iter().filter(|(_, function)| is_its(function)).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// What a model is told that asks for a function that it has made up.
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

    /// As OpenAI has it: whoever does not say so has a say in every call. A server of the operator's has the operator's
    /// approval.
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

/// A function's definition, with what the settings file says where the row says nothing.
fn defined(tool: &RawValue, entry: &ConfiguredFunction) -> Box<RawValue> {
    let mut fields = Fields::read(tool.get().as_bytes()).expect("it was read before");
    if fields.raw("description").is_none() && !entry.description.is_empty() {
        fields.set("description", &entry.description);
    }
    if fields.raw("parameters").is_none() {
        fields.set("parameters", &entry.parameters);
        // The settings file's schemas need not keep to the strict mode's rules.
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

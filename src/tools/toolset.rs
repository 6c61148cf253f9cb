//! The tools one row asks for: which of them are served here, and how the model is told of all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::ToolError;
use super::catalog::{Agent, Catalog, Entry, RowServer, Served, headers};
use super::http::HttpTool;
use super::mcp::{McpClient, McpTool};
use crate::domain::outcome::FailureReason;
use crate::domain::response::{Fields, McpFunction, McpList, mcp_function_name};

/// The tools of one row, or of one agent.
#[derive(Default)]
pub struct Toolset {
    functions: HashMap<String, Function>,
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

/// What is read of a tool in a row.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tool {
    r#type: String,
    name: String,
    server_label: String,
    server_url: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    authorization: Option<String>,
    allowed_tools: Option<Allowed>,
    require_approval: Option<Approval>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Allowed {
    Names(Vec<String>),
    Filter { tool_names: Vec<String> },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Approval {
    Word(String),
    ByTool {
        #[serde(default)]
        always: Option<ToolNames>,
        #[serde(default)]
        never: Option<ToolNames>,
    },
}

#[derive(Default, Deserialize)]
struct ToolNames {
    #[serde(default)]
    tool_names: Vec<String>,
}

impl Catalog {
    /// Whether any tool of a request is served here.
    ///
    /// # Errors
    /// What is wrong with the request's tools.
    pub fn serves(&self, request: &Fields) -> Result<bool, NoToolset> {
        Ok(read(request)?.iter().any(|(_, tool)| self.is_served(tool)))
    }

    fn is_served(&self, tool: &Tool) -> bool {
        match tool.r#type.as_str() {
            "function" => self.function(&tool.name).is_some(),
            "mcp" => match &tool.server_url {
                // Without hosts that rows may name, servers of rows are the upstream's affair.
                Some(_) => self.takes_servers_of_rows(),
                None => self.server(&tool.server_label).is_some(),
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
                if tool.r#type == "function" {
                    toolset.add(&tool.name, Function::Client)?;
                }
                toolset.definitions.push(raw);
            } else if tool.r#type == "function" {
                let entry = self.function(&tool.name).expect("it is served");
                let function = match &entry.served {
                    Served::Http(tool) => Function::Http(tool.clone()),
                    Served::Agent(agent) => Function::Agent(agent.clone()),
                };
                toolset.add(&tool.name, function)?;
                toolset.definitions.push(defined(&raw, entry));
            } else {
                let client = self.client(&tool)?;
                toolset.add_server(&tool, client).await?;
            }
        }
        Ok(toolset)
    }

    fn client(&self, tool: &Tool) -> Result<Arc<McpClient>, NoToolset> {
        let label = &tool.server_label;
        let Some(url) = &tool.server_url else {
            return Ok(self.server(label).expect("it is served").clone());
        };
        let unsupported = |why: String| NoToolset::Unsupported(why);
        let url = url::Url::parse(url)
            .map_err(|error| unsupported(format!("The 'server_url' of MCP server '{label}' is no URL: {error}.")))?;
        let mut texts = tool.headers.clone().unwrap_or_default();
        if let Some(token) = &tool.authorization {
            texts.insert("Authorization".to_owned(), format!("Bearer {token}"));
        }
        let texts: Vec<_> = texts.iter().map(|(name, value)| (name, value.clone())).collect();
        let headers = headers(texts.into_iter())
            .map_err(|error| unsupported(format!("The headers of MCP server '{label}' cannot be sent: {error}.")))?;
        let server = RowServer { label: label.clone(), url, headers };
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
            Some(_) => Err(NoToolset::Unsupported(format!("The row has two tools with the function name '{name}'."))),
        }
    }

    async fn add_server(&mut self, tool: &Tool, client: Arc<McpClient>) -> Result<(), NoToolset> {
        let label = &tool.server_label;
        let offered = client.tools().await.map_err(|error| {
            let text = format!("The tools of MCP server '{label}' cannot be listed: {error}");
            match error {
                ToolError::Unreachable(_) | ToolError::TimedOut(_) => NoToolset::Unreachable(text),
                _ => NoToolset::Unsupported(text),
            }
        })?;
        let mut listed = Vec::new();
        for offer in offered.iter().filter(|offer| tool.allows(&offer.name)) {
            let function = McpFunction {
                label: label.clone(),
                tool: offer.name.clone(),
                needs_approval: tool.needs_approval(&offer.name),
            };
            let name = mcp_function_name(label, &offer.name);
            self.definitions.push(as_function(&name, offer));
            self.add(&name, Function::Mcp(client.clone(), function))?;
            listed.push(raw(offer));
        }
        self.lists.push(McpList { label: label.clone(), tools: listed });
        Ok(())
    }
}

impl Tool {
    fn allows(&self, name: &str) -> bool {
        match &self.allowed_tools {
            None => true,
            Some(Allowed::Names(names) | Allowed::Filter { tool_names: names }) => {
                names.iter().any(|known| known == name)
            }
        }
    }

    /// As OpenAI has it: whoever does not say so has a say in every call. A server of the operator's has the operator's
    /// approval.
    fn needs_approval(&self, name: &str) -> bool {
        let has = |names: &Option<ToolNames>| {
            names.as_ref().is_some_and(|names| names.tool_names.iter().any(|known| known == name))
        };
        match &self.require_approval {
            None => self.server_url.is_some(),
            Some(Approval::Word(word)) => word != "never",
            Some(Approval::ByTool { always, never }) => has(always) || !has(never),
        }
    }
}

fn read(request: &Fields) -> Result<Vec<(Box<RawValue>, Tool)>, NoToolset> {
    let wrong =
        |at: usize, error: &serde_json::Error| NoToolset::Unsupported(format!("'tools[{at}]' is not a tool: {error}."));
    let tools: Option<Vec<Box<RawValue>>> =
        request.get("tools").map_err(|error| NoToolset::Unsupported(format!("'tools' is not a list: {error}.")))?;
    let read = |(at, raw): (usize, Box<RawValue>)| match serde_json::from_str::<Tool>(raw.get()) {
        Ok(tool) => Ok((raw, tool)),
        Err(error) => Err(wrong(at, &error)),
    };
    tools.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// A function's definition, with what the settings file says where the row says nothing.
fn defined(tool: &RawValue, entry: &Entry) -> Box<RawValue> {
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

fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("it has a form in JSON")
}

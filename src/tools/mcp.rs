//! MCP servers over streamable HTTP.
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;
use serde::Serialize;
use serde_json::value::RawValue;

use super::ToolError;

pub struct McpServer {
    pub label: String,
    pub url: Url,
    pub headers: HeaderMap,
    pub allowed_tools: Option<Vec<String>>,
    pub timeout: Duration,
    pub max_output_bytes: usize,
    pub is_row_given: bool,
}

#[derive(Serialize)]
pub struct McpTool {
    pub name: String,
    pub description: Option<String>,
    pub input_schema: Box<RawValue>,
    pub annotations: Option<Box<RawValue>>,
}

pub struct McpClient;

impl McpClient {
    pub fn new(_server: McpServer) -> Result<Self, ToolError> {
        Ok(Self)
    }
    pub async fn tools(&self) -> Result<Arc<[McpTool]>, ToolError> {
        todo!()
    }
    pub async fn call(
        &self,
        _name: &str,
        _arguments: serde_json::Map<String, serde_json::Value>,
        _key: &str,
    ) -> Result<String, ToolError> {
        todo!()
    }
}

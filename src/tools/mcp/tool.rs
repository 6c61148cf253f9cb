//! The tools of an MCP server, and the results of calls.

use std::borrow::Cow;

use rmcp::model::{CallToolResult, ContentBlock, PaginatedRequestParams, Tool};
use rmcp::service::{Peer, RoleClient};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::failure;
use crate::tools::ToolError;

/// Tools of one server. No model can choose among more, and a list must not fill the memory.
const MAX_TOOLS: usize = 1000;
const MAX_LIST_BYTES: usize = 4 << 20;

/// A tool of an MCP server, in the shape of the `tools` of OpenAI's `mcp_list_tools` items.
#[derive(Debug, Clone, Serialize)]
pub struct McpTool {
    /// Its name at the server.
    pub name: String,
    /// Its description, for the model.
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    pub input_schema: Box<RawValue>,
    /// Hints, such as whether it only reads.
    pub annotations: Option<Box<RawValue>>,
}

impl McpTool {
    /// Its size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = [Some(self.name.as_str()), self.description.as_deref()];
        let values = [Some(&self.input_schema), self.annotations.as_ref()].map(|value| value.map(|value| value.get()));
        texts.iter().chain(&values).flatten().map(|text| text.len()).sum()
    }
}

impl From<Tool> for McpTool {
    fn from(tool: Tool) -> Self {
        Self {
            name: tool.name.into_owned(),
            description: tool.description.map(Cow::into_owned),
            input_schema: json(&tool.input_schema),
            annotations: tool.annotations.as_ref().map(json),
        }
    }
}

/// Lists the allowed tools of a server, from all pages of its list.
pub async fn list(server: &Peer<RoleClient>, is_allowed: impl Fn(&str) -> bool) -> Result<Vec<McpTool>, ToolError> {
    let (mut tools, mut bytes, mut cursor) = (Vec::new(), 0, None);
    loop {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let page = server.list_tools(Some(params)).await.map_err(failure::of_call)?;
        for tool in page.tools.into_iter().filter(|tool| is_allowed(&tool.name)).map(McpTool::from) {
            bytes += tool.bytes();
            tools.push(tool);
        }
        if bytes > MAX_LIST_BYTES {
            return Err(ToolError::TooLarge { limit: MAX_LIST_BYTES });
        }
        if tools.len() > MAX_TOOLS {
            return Err(ToolError::Refused(format!("its server offers more than {MAX_TOOLS} tools")));
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(tools);
        }
    }
}

/// The text of a result: one line for each content block. A block that is not text becomes JSON.
pub fn text_of(result: CallToolResult, limit: usize) -> Result<String, ToolError> {
    let is_error = result.is_error == Some(true);
    let line = |content| match content {
        ContentBlock::Text(text) => text.text,
        other => json(&other).get().to_owned(),
    };
    let text = match result.structured_content {
        Some(structured) if result.content.is_empty() => structured.to_string(),
        _ => result.content.into_iter().map(line).collect::<Vec<_>>().join("\n"),
    };
    match text.len() {
        length if length > limit => Err(ToolError::TooLarge { limit }),
        _ if is_error => Err(ToolError::Failed(text)),
        _ => Ok(text),
    }
}

fn json(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("what came as JSON can be written as JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IMAGE: &str = r#"{"type":"image","data":"AA==","mimeType":"image/png"}"#;

    fn text(result: Value) -> Result<String, ToolError> {
        text_of(serde_json::from_value(result).unwrap(), 100)
    }

    #[test]
    fn a_result_becomes_a_text() {
        let image: Value = serde_json::from_str(IMAGE).unwrap();
        let hello = json!({"type": "text", "text": "hello"});
        let cases = [
            (json!({"content": [hello]}), "hello".to_owned()),
            (json!({"content": [hello, hello]}), "hello\nhello".to_owned()),
            (json!({"content": [hello, image]}), "hello\n".to_owned() + IMAGE),
            (json!({"content": []}), String::new()),
            (json!({"content": [], "structuredContent": {"a": 1}}), r#"{"a":1}"#.to_owned()),
            (json!({"content": [hello], "structuredContent": {"a": 1}}), "hello".to_owned()),
        ];

        for (result, expected) in cases {
            assert_eq!(text(result), Ok(expected));
        }
    }

    #[test]
    fn an_error_is_told_apart_and_a_long_text_is_not_taken() {
        let long = json!({"type": "text", "text": "x".repeat(101)});

        let failed = text(json!({"content": [{"type": "text", "text": "no"}], "isError": true}));
        assert_eq!(failed, Err(ToolError::Failed("no".into())));
        assert_eq!(text(json!({"content": [long]})), Err(ToolError::TooLarge { limit: 100 }));
    }
}

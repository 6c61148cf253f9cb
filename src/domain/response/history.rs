//! Translates the items of a response, as a client sees them, to the items that its model sees: tools of MCP servers
//! are functions to the model.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::conversation::call_output;
use super::{mcp_function_name, raw};

/// The members of an item that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct HistoryItem {
    r#type: String,
    id: String,
    call_id: String,
    server_label: String,
    name: String,
    arguments: String,
    output: Option<Box<RawValue>>,
    error: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct McpToolError {
    content: Vec<ErrorText>,
}

#[derive(Deserialize)]
struct ErrorText {
    text: String,
}

impl HistoryItem {
    fn of(item: &RawValue) -> Self {
        serde_json::from_str(item.get()).unwrap_or_default()
    }

    /// The call as a function call, followed by its output.
    fn as_function(&self, output: &str) -> Vec<Box<RawValue>> {
        let name = mcp_function_name(&self.server_label, &self.name);
        let call = json!({
            "type": "function_call", "call_id": self.id, "name": name, "arguments": self.arguments,
        });
        vec![raw(&call), call_output(&self.id, output)]
    }

    fn said(&self) -> String {
        let text = |json: &Option<Box<RawValue>>| json.as_ref().map(|json| json.get().to_owned());
        let output =
            self.output.as_ref().and_then(|output| serde_json::from_str::<Option<String>>(output.get()).ok()?);
        let error = self.error.as_ref().and_then(|error| serde_json::from_str::<McpToolError>(error.get()).ok());
        let error = error.map(|error| error.content.into_iter().map(|text| text.text).collect::<String>());
        output.or(error).or_else(|| text(&self.error)).unwrap_or_default()
    }
}

/// Translates an item of an `input` or of an output to the items that a model sees; some items have none.
#[must_use]
pub fn for_model(item: Box<RawValue>) -> Vec<Box<RawValue>> {
    let read = HistoryItem::of(&item);
    match read.r#type.as_str() {
        // The model sees the tools in `tools`, and a refused call as a call with an output.
        "mcp_list_tools" | "mcp_approval_response" => Vec::new(),
        "mcp_call" => read.as_function(&read.said()),
        "mcp_approval_request" => read.as_function("Nobody has approved this call, so that it was not made."),
        _ => vec![item],
    }
}

/// Adds an output to each function call without one, such as the calls of a response that was cut off: servers refuse a
/// conversation with unanswered calls.
#[must_use]
pub fn with_every_call_answered(items: Vec<Box<RawValue>>) -> Vec<Box<RawValue>> {
    let read: Vec<HistoryItem> = items.iter().map(|item| HistoryItem::of(item)).collect();
    let is = |item: &&HistoryItem, kind: &str| item.r#type == kind;
    let answered: HashSet<&str> =
        read.iter().filter(|item| is(item, "function_call_output")).map(|item| item.call_id.as_str()).collect();
    let answer = |item: &HistoryItem| {
        let is_open = item.r#type == "function_call" && !answered.contains(item.call_id.as_str());
        is_open.then(|| call_output(&item.call_id, "The function was not called."))
    };
    items.into_iter().zip(&read).flat_map(|(item, read)| std::iter::once(item).chain(answer(read))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(json: &serde_json::Value) -> Vec<Box<RawValue>> {
        serde_json::from_value(json.clone()).expect("a list")
    }

    fn values(items: &[Box<RawValue>]) -> serde_json::Value {
        serde_json::to_value(items).expect("JSON")
    }

    #[test]
    fn tools_of_servers_are_functions_and_their_outputs() {
        let shown = json!([
            { "type": "mcp_list_tools", "server_label": "s", "tools": [] },
            { "type": "mcp_call", "id": "mcp_1", "server_label": "s", "name": "f", "arguments": "{}", "output": "3" },
            { "type": "mcp_call", "id": "mcp_2", "server_label": "s", "name": "f", "arguments": "{}", "output": null,
              "error": { "type": "mcp_tool_execution_error", "content": [{ "type": "text", "text": "no" }] } },
            { "type": "mcp_approval_request", "id": "mcpr_3", "server_label": "s", "name": "g", "arguments": "{}" },
            { "type": "mcp_approval_response", "approval_request_id": "mcpr_3", "approve": false },
            { "role": "user", "content": "Hi" },
        ]);
        let told: Vec<_> = items(&shown).into_iter().flat_map(for_model).collect();

        let call =
            |id: &str, name: &str| json!({ "type": "function_call", "call_id": id, "name": name, "arguments": "{}" });
        let not_made = "Nobody has approved this call, so that it was not made.";
        let expected = json!([
            call("mcp_1", "s__f"), call_output("mcp_1", "3"), call("mcp_2", "s__f"), call_output("mcp_2", "no"),
            call("mcpr_3", "s__g"), call_output("mcpr_3", not_made), { "role": "user", "content": "Hi" },
        ]);
        assert_eq!(values(&told), expected);
    }

    #[test]
    fn calls_that_nobody_has_answered_are_answered() {
        let said = json!([
            { "type": "function_call", "call_id": "a", "name": "f", "arguments": "{}" },
            { "type": "function_call", "call_id": "b", "name": "f", "arguments": "{}" },
            { "role": "user", "content": "Hi" },
            { "type": "function_call_output", "call_id": "b", "output": "3" },
        ]);

        let answered = values(&with_every_call_answered(items(&said)));

        assert_eq!(answered[1], json!(call_output("a", "The function was not called.")));
        assert_eq!(answered.as_array().expect("a list").len(), 5);
    }
}

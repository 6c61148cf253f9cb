//! The response object that is assembled from a row's steps (contract §10.6).

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::conversation::{output_at, turns_of};
use super::{Fields, ItemIds, Limit, ScopeEnd, Step, StepPath, TokenUsage, ToolCall, ToolOutput, Turn, TurnEnd, raw};
use crate::domain::ids::RequestId;
use crate::domain::time::Timestamp;

/// A tool of an MCP server, which the model sees as a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpFunction {
    /// The server.
    pub label: String,
    /// The tool, as the server names it.
    pub tool: String,
    /// Whether a call needs approval first.
    pub needs_approval: bool,
}

/// The tools that an MCP server offered a row.
#[derive(Debug, Clone)]
pub struct McpList {
    /// The server.
    pub label: String,
    /// The tools, each as an `mcp_list_tools` item has it.
    pub tools: Vec<Box<RawValue>>,
}

/// The data that a response is assembled from.
pub struct Assembly<'a> {
    /// The row.
    pub row: RequestId,
    /// The row's body as uploaded.
    pub body: &'a Fields,
    /// The tools that MCP servers offered, in the order of the row's tools.
    pub lists: &'a [McpList],
    /// Which functions are tools of MCP servers.
    pub mcp: &'a dyn Fn(&str) -> Option<McpFunction>,
    /// Every step of the row.
    pub steps: &'a [Step],
    /// How the row ended.
    pub end: &'a ScopeEnd,
    /// When it ended.
    pub ended_at: Timestamp,
}

impl Assembly<'_> {
    /// The response.
    #[must_use]
    pub fn response(&self) -> Fields {
        let root = StepPath::root();
        let turns: Vec<_> = turns_of(&root, self.steps).collect();
        let last = turns.last().map(|(_, turn)| *turn);
        let (status, error, incomplete) = self.status(last);
        let ended_at = self.ended_at.0 / 1000;

        let mut response = Fields::default();
        for (name, default) in MEMBERS {
            match self.body.raw(name) {
                Some(value) => response.set(name, value),
                None => response.set(name, &RawValue::from_string(default.to_owned()).expect("it is JSON")),
            }
        }
        response.set("id", &self.row.response_id());
        response.set("object", "response");
        response.set(
            "created_at",
            &turns.first().map_or(ended_at, |(step, turn)| match turn.created_at {
                // The upstream does not say.
                0 => step.started_at.0 / 1000,
                at => at,
            }),
        );
        response.set("status", status);
        response.set("completed_at", &(status == "completed").then_some(ended_at));
        response.set("error", &error);
        response.set("incomplete_details", &incomplete);
        if let Some(turn) = last.filter(|turn| !turn.model.is_empty()) {
            response.set("model", &turn.model);
        }
        response.set("tools", &self.tools());
        response.set("output", &self.output(&turns));
        response.set("usage", &usage(self.steps));
        response
    }

    fn status(&self, last: Option<&Turn>) -> (&'static str, Option<Box<RawValue>>, Option<Box<RawValue>>) {
        match (self.end, last.map(|turn| &turn.end)) {
            (ScopeEnd::Reached(limit), _) => ("incomplete", None, Some(raw(&details(*limit)))),
            (ScopeEnd::CutOff, Some(TurnEnd::Incomplete(details))) => ("incomplete", None, Some(details.clone())),
            (ScopeEnd::Failed, Some(TurnEnd::Failed(error))) => ("failed", Some(error.clone()), None),
            _ => ("completed", None, None),
        }
    }

    /// The row's tools, as a response shows them.
    fn tools(&self) -> Vec<Fields> {
        let tools: Vec<Fields> = self.body.get("tools").ok().flatten().unwrap_or_default();
        tools.into_iter().map(shown_tool).collect()
    }

    /// The output items: first the tools that MCP servers offered, then turn by turn the items of the model and the
    /// outputs of tools. An answer that the model was asked to correct is left out.
    fn output(&self, turns: &[(&Step, &Turn)]) -> Vec<Box<RawValue>> {
        let ids = ItemIds::of_step(self.row, &StepPath::root());
        let lists = (0..).zip(self.lists).map(|(no, list)| mcp_list(list, &ids.id("mcpl", no)));
        let mut output: Vec<_> = lists.collect();
        for (position, (step, turn)) in turns.iter().enumerate() {
            let is_last = position + 1 == turns.len();
            if is_last || !turn.calls().is_empty() {
                self.add_turn(step, turn, &mut output);
            }
        }
        output
    }

    /// Adds the items of a turn, and after them the outputs of the functions that it called.
    fn add_turn(&self, step: &Step, turn: &Turn, output: &mut Vec<Box<RawValue>>) {
        let mut answers = Vec::new();
        for (item, call) in turn.items() {
            let Some((no, call)) = call else {
                output.push(item.to_owned());
                continue;
            };
            let path = step.path.child(no);
            let answer = output_at(self.steps, &path);
            let ids = ItemIds::of_step(self.row, &path);
            if let Some(function) = (self.mcp)(&call.name) {
                output.push(mcp_item(&function, &call, answer, &ids));
                continue;
            }
            output.push(item.to_owned());
            answers.extend(answer.map(|answer| function_output(&call, answer, &ids)));
        }
        output.append(&mut answers);
    }
}

/// A tool without its secrets, and with the members that the API always shows.
fn shown_tool(mut tool: Fields) -> Fields {
    tool.remove("headers");
    tool.remove("authorization");
    if tool.get::<String>("type").ok().flatten().as_deref() == Some("function") {
        for name in ["parameters", "strict"] {
            if tool.raw(name).is_none() {
                tool.set(name, &Value::Null);
            }
        }
    }
    tool
}

fn function_output(call: &ToolCall, answer: &ToolOutput, ids: &ItemIds) -> Box<RawValue> {
    raw(&json!({
        "id": ids.id("fco", 0), "type": "function_call_output", "status": "completed",
        "call_id": call.call_id, "output": answer.output,
    }))
}

fn mcp_list(McpList { label, tools }: &McpList, id: &str) -> Box<RawValue> {
    raw(&json!({ "id": id, "type": "mcp_list_tools", "server_label": label, "tools": tools, "error": null }))
}

/// The members of a response in order, each with its default. A member that the request has too gets the request's
/// value.
const MEMBERS: [(&str, &str); 32] = [
    ("id", "null"),
    ("object", r#""response""#),
    ("created_at", "null"),
    ("status", "null"),
    ("completed_at", "null"),
    ("background", "false"),
    ("error", "null"),
    ("incomplete_details", "null"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("model", r#""""#),
    ("output", "[]"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt", "null"),
    ("prompt_cache_key", "null"),
    ("prompt_cache_retention", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    ("service_tier", "null"),
    ("store", "true"),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("top_p", "1.0"),
    ("truncation", r#""disabled""#),
    ("usage", "null"),
    ("user", "null"),
    ("metadata", "{}"),
];

/// A limit as `incomplete_details`. OpenAI has a reason only for the output tokens. The other limits have no `reason`,
/// which the SDKs would refuse, but a member of their own.
fn details(limit: Limit) -> Value {
    match limit {
        Limit::OutputTokens => json!({ "reason": limit.as_str() }),
        limit => json!({
            "limit": limit.as_str(),
            "message": format!("The response was ended by the limit '{limit}'."),
        }),
    }
}

fn mcp_item(function: &McpFunction, call: &ToolCall, answer: Option<&ToolOutput>, ids: &ItemIds) -> Box<RawValue> {
    let McpFunction { label, tool, needs_approval } = function;
    if *needs_approval {
        return raw(&json!({
            "id": ids.id("mcpr", 0), "type": "mcp_approval_request",
            "server_label": label, "name": tool, "arguments": call.arguments,
        }));
    }
    let error = answer.filter(|answer| answer.is_error).map(|answer| {
        json!({
            "type": "mcp_tool_execution_error", "content": [{ "type": "text", "text": answer.output }],
        })
    });
    let status = match answer {
        Some(answer) if answer.is_error => "failed",
        Some(_) => "completed",
        None => "incomplete",
    };
    raw(&json!({
        "id": ids.id("mcp", 0), "type": "mcp_call", "status": status, "approval_request_id": null,
        "server_label": label, "name": tool, "arguments": call.arguments,
        "output": answer.filter(|answer| !answer.is_error).map(|answer| &answer.output), "error": error,
    }))
}

/// The tokens of all model calls, including those of agents; null if the upstream never reports any.
fn usage(steps: &[Step]) -> Value {
    let mut sum: Option<TokenUsage> = None;
    for usage in steps.iter().filter_map(|step| step.turn()?.usage) {
        sum.get_or_insert_default().add(usage);
    }
    let Some(TokenUsage { usage, cache_write_tokens }) = sum else { return Value::Null };
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens, "cache_write_tokens": cache_write_tokens },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": usage.total_tokens,
    })
}

#[cfg(test)]
mod tests;

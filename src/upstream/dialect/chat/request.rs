//! The Chat Completions body for a Responses body.

use serde::Serialize;
use serde_json::value::RawValue;

use super::input;
use super::node::Node;
use super::tools;
use crate::domain::response::{Fields, Unsupported};
use crate::domain::row::shown;

/// Translates a Responses body to a Chat Completions body.
///
/// Members with the same name in both APIs, and members that neither knows, are copied as they were written.
///
/// # Errors
/// The first member that has no counterpart or the wrong type.
pub fn request(body: &Fields) -> Result<Fields, Unsupported> {
    let mut body = Node::body(body.clone());
    refuse_what_no_upstream_can_do(&mut body)?;
    let messages = input::take(&mut body)?;
    let max_tokens = body.take("max_output_tokens");
    let effort = effort(&mut body)?;
    let (format, verbosity) = text(&mut body)?;
    let mut tools = tools::take(&mut body)?;
    let tool_choice = tools::take_choice(&mut body, &mut tools)?;
    let (logprobs, top_logprobs) = logprobs(&mut body)?;

    let mut chat = Chat(body.rest());
    chat.put("messages", "input", Some(&messages))?;
    chat.put("max_tokens", "max_output_tokens", max_tokens.as_ref())?;
    chat.put("reasoning_effort", "reasoning.effort", effort.as_ref())?;
    chat.put("response_format", "text.format", format.as_ref())?;
    chat.put("verbosity", "text.verbosity", verbosity.as_ref())?;
    chat.put("tools", "tools", Some(&tools).filter(|tools| !tools.is_empty()))?;
    chat.put("tool_choice", "tool_choice", tool_choice.as_ref())?;
    chat.put("logprobs", "include", logprobs.then_some(&true))?;
    chat.put("top_logprobs", "top_logprobs", top_logprobs.as_ref())?;
    Ok(chat.0)
}

struct Chat(Fields);

impl Chat {
    /// Sets the member `name`, the counterpart of `from` in the Responses API.
    fn put(&mut self, name: &str, from: &str, value: Option<&(impl Serialize + ?Sized)>) -> Result<(), Unsupported> {
        let Some(value) = value else { return Ok(()) };
        if self.0.raw(name).is_some() {
            let message = format!("'{name}' and '{from}' are two names of one setting; leave '{name}' out.");
            return Err(Unsupported { param: name.to_owned(), message });
        }
        self.0.set(name, value);
        Ok(())
    }
}

/// Members that no chat request can express, each with the one value that changes nothing.
const REFUSED: [(&str, &str, &str); 9] = [
    (
        "previous_response_id",
        "null",
        "'previous_response_id' names no response that is kept here; write the conversation out in 'input'.",
    ),
    (
        "conversation",
        "null",
        "'conversation' cannot be sent to an upstream that has only /v1/chat/completions; write the \
         conversation out in 'input'.",
    ),
    (
        "prompt",
        "null",
        "'prompt' templates cannot be sent to an upstream that has only /v1/chat/completions; write the prompt out in \
         'input'.",
    ),
    (
        "context_management",
        "null",
        "'context_management' cannot be sent to an upstream that has only /v1/chat/completions; shorten \
         'input' instead.",
    ),
    (
        "truncation",
        r#""disabled""#,
        "'truncation' cannot be sent to an upstream that has only /v1/chat/completions; shorten 'input' instead.",
    ),
    ("stream", "false", "Streaming is not supported in a batch; leave 'stream' out."),
    ("stream_options", "null", "Streaming is not supported in a batch; leave 'stream_options' out."),
    ("background", "false", "The whole batch runs in the background; leave 'background' out."),
    ("n", "1", "A response has one answer; leave 'n' out and send the request several times instead."),
];

fn refuse_what_no_upstream_can_do(body: &mut Node) -> Result<(), Unsupported> {
    // This program keeps every result, and counts the calls of tools itself.
    body.forget(&["store", "max_tool_calls"]);
    for (name, harmless, message) in REFUSED {
        if body.take(name).is_some_and(|value| value.get() != harmless) {
            return Err(body.refuse_member(name, |_| message.to_owned()));
        }
    }
    Ok(())
}

fn effort(body: &mut Node) -> Result<Option<Box<RawValue>>, Unsupported> {
    let Some(mut reasoning) = body.take_node("reasoning")? else { return Ok(None) };
    let effort = reasoning.take("effort");
    reasoning.nothing_left()?;
    Ok(effort)
}

/// `response_format` and `verbosity`.
fn text(body: &mut Node) -> Result<(Option<Fields>, Option<Box<RawValue>>), Unsupported> {
    let Some(mut text) = body.take_node("text")? else { return Ok((None, None)) };
    let format = text.take_node("format")?.map(response_format).transpose()?.flatten();
    let verbosity = text.take("verbosity");
    text.nothing_left()?;
    Ok((format, verbosity))
}

fn response_format(mut format: Node) -> Result<Option<Fields>, Unsupported> {
    let kind = format.need_text("type")?;
    let mut response_format = Fields::default();
    response_format.set("type", &kind);
    match kind.as_str() {
        "text" => {
            format.nothing_left()?;
            return Ok(None);
        }
        "json_object" => format.nothing_left()?,
        "json_schema" => response_format.set("json_schema", &format.rest()),
        _ => return Err(format.without_counterpart("type")),
    }
    Ok(Some(response_format))
}

/// `logprobs` and `top_logprobs`.
fn logprobs(body: &mut Node) -> Result<(bool, Option<u32>), Unsupported> {
    let include: Vec<String> = body.take_as("include", "an array of strings")?.unwrap_or_default();
    if let Some(other) = include.iter().find(|name| *name != "message.output_text.logprobs") {
        return Err(body.refuse_member("include", |_| {
            format!(
                "An upstream that has only /v1/chat/completions cannot include '{}'; leave it out of 'include'.",
                shown(other)
            )
        }));
    }
    let top: Option<u32> = body.take_as("top_logprobs", "a whole number")?;
    let wanted = !include.is_empty() || top.is_some_and(|top| top > 0);
    Ok((wanted, top.filter(|_| wanted)))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

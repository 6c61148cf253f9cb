//! Translates `instructions` and `input`, item by item, to the messages of a chat.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::content::{self, ChatContent};
use super::messages::{ChatToolCall, Messages};
use super::node::{Node, as_string, is_string, nodes};
use crate::domain::response::{Fields, Unsupported, mcp_function_name, raw};
use crate::domain::row::shown;

/// Takes `instructions` and `input` out of a body.
pub(super) fn take(body: &mut Node) -> Result<Vec<Fields>, Unsupported> {
    let mut messages = Messages::default();
    if let Some(instructions) = body.take("instructions") {
        add_all("instructions", "system", instructions, &mut messages)?;
    }
    add_all("input", "user", body.need("input")?, &mut messages)?;
    Ok(with_one_beginning(messages.finish()))
}

/// Joins the system messages at the start into one: many chat templates accept at most one system message, and only at
/// the start.
fn with_one_beginning(mut messages: Vec<Fields>) -> Vec<Fields> {
    // A system message with a name, or with any other member, is not joined.
    let joins = |message: &&Fields| {
        message.iter().all(|(name, _)| matches!(name, "role" | "content"))
            && message.raw("role").is_some_and(|role| role.get() == r#""system""#)
    };
    let beginning = messages.iter().take_while(joins).count();
    if beginning > 1 {
        let contents = messages[..beginning].iter().filter_map(|message| message.raw("content"));
        let one = message("system", &content::joined(contents));
        messages.splice(..beginning, [one]);
    }
    messages
}

/// Adds the value at the path `at` of the body: items, or a string, which is a message of `role`.
fn add_all(at: &str, role: &str, json: Box<RawValue>, messages: &mut Messages) -> Result<(), Unsupported> {
    if is_string(&json) {
        messages.say(message(role, &ChatContent::Text(json)));
        return Ok(());
    }
    nodes(at, &json)?.into_iter().try_for_each(|item| add(item, messages))
}

fn add(mut item: Node, messages: &mut Messages) -> Result<(), Unsupported> {
    let kind: Option<String> = item.take_as("type", "a string")?;
    match kind.as_deref().unwrap_or("message") {
        "message" => add_message(item, messages),
        "reasoning" => add_reasoning(item, messages),
        "function_call" => add_call(item, messages),
        "function_call_output" => add_output(item, messages),
        "mcp_call" => add_mcp_call(item, messages),
        // The model knows them from `tools`.
        "mcp_list_tools" => Ok(()),
        "mcp_approval_request" | "mcp_approval_response" => Err(item.refuse(|at| {
            format!("'{at}': a batch cannot ask for approval; set 'require_approval' to 'never' and leave it out.")
        })),
        "item_reference" => Err(item
            .refuse(|at| format!("'{at}' refers to an item that is not kept here; write the item out in its place."))),
        other => Err(item.refuse(|at| {
            format!(
                "'{at}': items of type '{}' cannot be sent to an upstream that has only /v1/chat/completions; leave it \
                 out.",
                shown(other)
            )
        })),
    }
}

fn add_message(mut item: Node, messages: &mut Messages) -> Result<(), Unsupported> {
    item.forget(&["id", "status"]);
    let role = item.need_text("role")?;
    let content = ChatContent::read(&item.place("content"), item.need("content")?)?;
    let mut message = match role.as_str() {
        "user" => message("user", &content),
        // The chat templates of open models know no developers.
        "system" | "developer" => message("system", &content.plain()),
        "assistant" => match content.refusal() {
            Some(refusal) => {
                let mut message = message("assistant", &None::<ChatContent>);
                message.set("refusal", refusal);
                message
            }
            None => message("assistant", &content.plain()),
        },
        other => {
            return Err(item.refuse_member("role", |at| {
                format!("'{at}' is '{}'; it must be 'user', 'system', 'developer' or 'assistant'.", shown(other))
            }));
        }
    };
    for (name, value) in item.rest().iter() {
        message.set(name, value);
    }
    if role == "assistant" {
        messages.answer(message);
    } else {
        messages.say(message);
    }
    Ok(())
}

fn add_reasoning(mut item: Node, messages: &mut Messages) -> Result<(), Unsupported> {
    #[derive(Deserialize)]
    struct ReasoningPart {
        text: String,
    }

    item.forget(&["id", "status"]);
    let mut text = |name| -> Result<String, Unsupported> {
        let parts: Option<Vec<ReasoningPart>> = item.take_as(name, "an array of texts")?;
        let texts: Vec<_> = parts.unwrap_or_default().into_iter().map(|part| part.text).collect();
        Ok(texts.join("\n"))
    };
    let (content, summary) = (text("content")?, text("summary")?);
    let reasoning = if content.is_empty() { summary } else { content };
    if item.take("encrypted_content").is_some() && reasoning.is_empty() {
        return Err(item.refuse_member("encrypted_content", |at| {
            format!("'{at}': the upstream cannot read encrypted reasoning; leave the item out.")
        }));
    }
    item.nothing_left()?;
    messages.think(&reasoning);
    Ok(())
}

fn add_call(mut item: Node, messages: &mut Messages) -> Result<(), Unsupported> {
    item.forget(&["id", "status"]);
    let call =
        ChatToolCall::new(item.need_text("call_id")?, item.need_text("name")?, as_string(item.need("arguments")?));
    item.nothing_left()?;
    messages.call(call);
    Ok(())
}

fn add_output(mut item: Node, messages: &mut Messages) -> Result<(), Unsupported> {
    // The name is that of the call.
    item.forget(&["id", "status", "name"]);
    let call_id = item.need_text("call_id")?;
    let output = ChatContent::read(&item.place("output"), item.need("output")?)?;
    item.nothing_left()?;
    add_tool_message(call_id, &output.plain(), messages);
    Ok(())
}

fn add_mcp_call(mut item: Node, messages: &mut Messages) -> Result<(), Unsupported> {
    item.forget(&["status", "approval_request_id"]);
    let id = item.need_text("id")?;
    let name = mcp_function_name(&item.need_text("server_label")?, &item.need_text("name")?);
    let arguments = as_string(item.need("arguments")?);
    let output = match (item.take("output"), item.take("error")) {
        (_, Some(error)) => raw(&format!("Error: {}", error_text(&error))),
        (Some(output), None) => as_string(output),
        (None, None) => {
            return Err(item.refuse(|at| format!("'{at}' is a call without output or error; leave it out.")));
        }
    };
    item.nothing_left()?;
    messages.call(ChatToolCall::new(id.clone(), name, arguments));
    add_tool_message(id, &ChatContent::Text(output), messages);
    Ok(())
}

/// The text of an error: the error itself if it is a string, else its message, else the texts of its content, else its
/// JSON.
fn error_text(error: &RawValue) -> String {
    #[derive(Deserialize)]
    struct ErrorPart {
        text: String,
    }

    let fields: Fields = serde_json::from_str(error.get()).unwrap_or_default();
    let message = || fields.get::<String>("message").ok()?;
    let content = || {
        let texts: Vec<_> = fields.get::<Vec<ErrorPart>>("content").ok()??.into_iter().map(|part| part.text).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    };
    let text = serde_json::from_str(error.get()).ok().or_else(message).or_else(content);
    text.unwrap_or_else(|| error.get().to_owned())
}

fn add_tool_message(call_id: String, content: &ChatContent, messages: &mut Messages) {
    let mut message = Fields::default();
    message.set("role", "tool");
    message.set("tool_call_id", &call_id);
    message.set("content", content);
    messages.output(call_id, message);
}

fn message(role: &str, content: &impl serde::Serialize) -> Fields {
    let mut message = Fields::default();
    message.set("role", role);
    message.set("content", content);
    message
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;

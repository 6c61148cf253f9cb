//! Servers that have the Responses API: what they are sent for a turn, and their answer read as one.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::domain::answer::without_lone_surrogates;
use crate::domain::response::{BadAnswer, Fields, ItemIds, TokenUsage, Turn, TurnEnd, raw, seconds};
use crate::domain::row::shown;

/// The request as a server can be sent it: without references to items that the server does not have.
///
/// Ids that were made here, as `ids` are, name no item of any server. A server that is told not to keep items has none:
/// then no item has an id, and reasoning that is nothing but its id is left out.
#[must_use]
pub fn request(request: &Fields, ids: &ItemIds) -> Fields {
    let is_kept = request.get::<bool>("store").ok().flatten() != Some(false);
    let is_made_here = |item: &Fields| item.get::<String>("id").ok().flatten().is_some_and(|id| ids.are_of_row(&id));
    let has_ours = || request.raw("input").is_some_and(|input| ids.are_of_row(input.get()));
    let input: Option<Vec<Fields>> = if is_kept && !has_ours() { None } else { request.get("input").ok().flatten() };
    let Some(mut input) = input else { return request.clone() };
    let is_reference = |item: &Fields| {
        let is_reasoning = item.get::<String>("type").ok().flatten().as_deref() == Some("reasoning");
        let has_content = item.raw("content").is_some_and(|content| content.get() != "[]");
        is_reasoning && !has_content && item.raw("encrypted_content").is_none()
    };
    input.retain(|item| is_kept || !is_reference(item));
    for item in input.iter_mut().filter(|item| !is_kept || is_made_here(item)) {
        item.remove("id");
    }
    let mut request = request.clone();
    request.set("input", &input);
    request
}

/// Reads a response as a turn. Its items stay as they came, with three exceptions. An item without an id gets one. A
/// call gets a new `call_id` if it has none, or if its id is taken by an earlier call of this turn or of earlier turns,
/// whose ids are `used`. Arguments that are not a string become one.
///
/// # Errors
/// What is wrong with the answer.
#[expect(clippy::implicit_hasher, reason = "there is one kind of set here")]
pub fn turn(answer: &[u8], ids: &ItemIds, used: &HashSet<String>) -> Result<Turn, BadAnswer> {
    let answer = Fields::read(&without_lone_surrogates(answer));
    let answer = answer.map_err(|_| "The upstream's answer is not a JSON object.")?;
    let end = end(&answer)?;
    let items: Option<Vec<Box<RawValue>>> =
        answer.get("output").map_err(|_| "The upstream's answer has an 'output' that is not an array.")?;
    let items = match (items, &end) {
        (Some(items), _) => items,
        (None, TurnEnd::Failed(_)) => Vec::new(),
        (None, _) => return Err("The upstream's answer has no output.".into()),
    };
    let mut calls = used.clone();
    let output = items.into_iter().enumerate().map(|(index, item)| with_ids(item, index, ids, &mut calls));
    Ok(Turn {
        model: answer.get("model").ok().flatten().unwrap_or_default(),
        created_at: seconds(&answer, "created_at"),
        output: output.collect::<Result<_, String>>()?,
        usage: TokenUsage::read(&answer),
        end,
    })
}

fn end(answer: &Fields) -> Result<TurnEnd, BadAnswer> {
    let status: Option<String> =
        answer.get("status").map_err(|_| "The upstream's answer has a 'status' that is not a string.")?;
    let why = |name, unknown: &str| match answer.raw(name) {
        Some(why) => why.to_owned(),
        None => RawValue::from_string(unknown.to_owned()).expect("it is JSON"),
    };
    match status.as_deref() {
        None | Some("completed") => Ok(TurnEnd::Completed),
        Some("incomplete") => Ok(TurnEnd::Incomplete(why("incomplete_details", r#"{"reason":null}"#))),
        Some("failed") => match passing_error(answer) {
            Some(why) => Err(BadAnswer::MayPass(why)),
            None => Ok(TurnEnd::Failed(why(
                "error",
                r#"{"code":"server_error","message":"The upstream does not say why the response failed."}"#,
            ))),
        },
        // A restarted server leaves responses behind in these states.
        Some(status @ ("cancelled" | "queued" | "in_progress")) => Err(BadAnswer::MayPass(not_final(status))),
        Some(other) => Err(BadAnswer::Final(not_final(&shown(other)))),
    }
}

fn not_final(status: &str) -> String {
    format!("The upstream's answer is not final: its status is '{status}'.")
}

/// The error of a failed response, if the upstream is at fault rather than the request: a retry can help.
fn passing_error(answer: &Fields) -> Option<String> {
    let error: Fields = answer.get("error").ok()??;
    let text = |name| error.get::<String>(name).ok().flatten();
    let code = text("code").filter(|code| matches!(code.as_str(), "server_error" | "rate_limit_exceeded"))?;
    let message = text("message").unwrap_or_default();
    Some(format!("The upstream's response failed with '{code}': {}", shown(&message)))
}

fn with_ids(
    item: Box<RawValue>,
    index: usize,
    ids: &ItemIds,
    calls: &mut HashSet<String>,
) -> Result<Box<RawValue>, String> {
    let mut fields: Fields = serde_json::from_str(item.get())
        .map_err(|_| format!("The upstream's answer has an 'output[{index}]' that is not an object."))?;
    let text = |fields: &Fields, name| fields.get::<String>(name).ok().flatten();
    let kind = text(&fields, "type").unwrap_or_default();
    let mut is_changed = false;
    if text(&fields, "id").is_none_or(|id| id.is_empty()) {
        fields.set("id", &ids.id(prefix(&kind), index));
        is_changed = true;
    }
    if kind == "function_call" {
        let given = text(&fields, "call_id");
        let call_id = ids.call_id(given.clone(), calls, index);
        if given.as_ref() != Some(&call_id) {
            fields.set("call_id", &call_id);
            is_changed = true;
        }
        // Some servers send the object itself, or nothing for no arguments.
        let arguments = fields.raw("arguments").map_or("{}", RawValue::get);
        if !arguments.starts_with('"') {
            let arguments = arguments.to_owned();
            fields.set("arguments", &arguments);
            is_changed = true;
        }
    }
    if !is_changed {
        return Ok(item);
    }
    Ok(raw(&fields))
}

/// The prefix of the ids of a type of item.
fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "mcp_call" => "mcp",
        _ => "item",
    }
}

#[cfg(test)]
mod tests;

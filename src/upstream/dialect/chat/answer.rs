//! Reads a chat completion as a turn, with the output items of a response.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::node::{as_string, is_string};
use crate::domain::answer::without_lone_surrogates;
use crate::domain::json_error::plainly;
use crate::domain::response::{BadAnswer, Fields, ItemIds, TokenUsage, Turn, TurnEnd, raw, seconds};
use crate::domain::row::shown;

/// Reads a chat completion as a turn. `ids` provides the ids of the items. It also provides the id of a call that has
/// none, or whose id is taken: by an earlier call of this turn, or by one of earlier turns, whose ids are `used`.
///
/// # Errors
/// What is wrong with the answer.
#[expect(clippy::implicit_hasher, reason = "there is one kind of set here")]
pub fn turn(answer: &[u8], ids: &ItemIds, used: &HashSet<String>) -> Result<Turn, BadAnswer> {
    let answer = Fields::read(&without_lone_surrogates(answer));
    let answer = answer.map_err(|_| "The upstream's answer is not a JSON object.")?;
    let choices: Option<Vec<Fields>> = member(&answer, "choices")?;
    let choice = choices.unwrap_or_default().into_iter().next().ok_or("The upstream's answer has no choices.")?;
    let message: Fields = member(&choice, "message")?.ok_or("The upstream's answer has no message.")?;
    let end = end(&choice)?;
    Ok(Turn {
        model: answer.get("model").ok().flatten().unwrap_or_default(),
        created_at: seconds(&answer, "created"),
        output: items(&message, &choice, &end, ids, used.clone())?,
        usage: TokenUsage::read(&answer),
        end,
    })
}

fn end(choice: &Fields) -> Result<TurnEnd, BadAnswer> {
    let reason: Option<String> = member(choice, "finish_reason")?;
    match reason.as_deref() {
        Some("length") => Ok(TurnEnd::Incomplete(raw(&json!({ "reason": "max_output_tokens" })))),
        Some("content_filter") => Ok(TurnEnd::Incomplete(raw(&json!({ "reason": "content_filter" })))),
        // Servers report an answer that they gave up on with these reasons; the part they sent is of no use.
        Some(reason @ ("abort" | "error")) => {
            Err(BadAnswer::MayPass(format!("The upstream broke its answer off: its finish_reason is '{reason}'.")))
        }
        _ => Ok(TurnEnd::Completed),
    }
}

fn items(
    message: &Fields,
    choice: &Fields,
    end: &TurnEnd,
    ids: &ItemIds,
    mut used: HashSet<String>,
) -> Result<Vec<Box<RawValue>>, String> {
    if message.raw("audio").is_some() {
        return Err("The upstream's answer has audio, which a response cannot have.".to_owned());
    }
    // Only the last item was cut off.
    let status = if matches!(end, TurnEnd::Completed) { "completed" } else { "incomplete" };
    let mut items = Vec::new();
    if let Some(text) = reasoning(message)? {
        items.push(raw(&json!({
            "id": ids.id("rs", items.len()), "type": "reasoning", "summary": [],
            "content": [{ "type": "reasoning_text", "text": text }], "status": "completed",
        })));
    }
    let calls = calls(message)?;
    let content = content(message, choice)?;
    if !content.is_empty() || calls.is_empty() {
        items.push(raw(&MessageItem {
            id: ids.id("msg", items.len()),
            r#type: "message",
            status: if calls.is_empty() { status } else { "completed" },
            role: "assistant",
            content: if content.is_empty() { vec![OutputPart::text(String::new(), Vec::new())] } else { content },
        }));
    }
    let last = calls.len().saturating_sub(1);
    for (index, (id, call)) in calls.into_iter().enumerate() {
        items.push(raw(&FunctionCallItem {
            id: ids.id("fc", items.len()),
            r#type: "function_call",
            call_id: ids.call_id(id, &mut used, items.len()),
            name: call.name,
            // Some servers send the object itself.
            arguments: call.arguments.map_or_else(|| raw("{}"), as_string),
            status: if index == last { status } else { "completed" },
        }));
    }
    Ok(items)
}

#[derive(Serialize)]
struct MessageItem {
    id: String,
    r#type: &'static str,
    status: &'static str,
    role: &'static str,
    content: Vec<OutputPart>,
}

#[derive(Serialize)]
struct FunctionCallItem {
    id: String,
    r#type: &'static str,
    call_id: String,
    name: String,
    arguments: Box<RawValue>,
    status: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OutputPart {
    OutputText { text: String, annotations: [(); 0], logprobs: Vec<TokenLogprob> },
    Refusal { refusal: String },
}

impl OutputPart {
    fn text(text: String, logprobs: Vec<TokenLogprob>) -> Self {
        Self::OutputText { text, annotations: [], logprobs }
    }
}

/// A token and how likely it was.
#[derive(Deserialize, Serialize)]
struct TokenLogprob {
    token: String,
    bytes: Option<Vec<u8>>,
    logprob: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<Vec<TokenLogprob>>,
}

impl TokenLogprob {
    /// Adds the bytes of the token, which a response always has and some servers leave out.
    fn with_bytes(mut self) -> Self {
        self.bytes = self.bytes.or_else(|| Some(self.token.clone().into_bytes()));
        self.top_logprobs = self.top_logprobs.map(|top| top.into_iter().map(Self::with_bytes).collect());
        self
    }
}

/// The reasoning text. Servers have two names for it; some send both.
fn reasoning(message: &Fields) -> Result<Option<String>, String> {
    for name in ["reasoning_content", "reasoning"] {
        let text: Option<String> = member(message, name)?;
        if text.as_ref().is_some_and(|text| !text.is_empty()) {
            return Ok(text);
        }
    }
    Ok(None)
}

fn content(message: &Fields, choice: &Fields) -> Result<Vec<OutputPart>, String> {
    #[derive(Deserialize)]
    struct AnswerPart {
        r#type: String,
        #[serde(default)]
        text: String,
        #[serde(default)]
        refusal: String,
    }

    let (mut text, mut refusal) = (String::new(), member::<String>(message, "refusal")?.unwrap_or_default());
    match message.raw("content") {
        Some(content) if !is_string(content) => {
            for part in member::<Vec<AnswerPart>>(message, "content")?.unwrap_or_default() {
                match part.r#type.as_str() {
                    "text" | "output_text" => text += &part.text,
                    "refusal" => refusal += &part.refusal,
                    other => return Err(format!("The upstream's answer has a part of type '{}'.", shown(other))),
                }
            }
        }
        _ => text = member(message, "content")?.unwrap_or_default(),
    }
    let mut parts = Vec::new();
    if !text.is_empty() {
        parts.push(OutputPart::text(text, logprobs(choice)?));
    }
    if !refusal.is_empty() {
        parts.push(OutputPart::Refusal { refusal });
    }
    Ok(parts)
}

fn logprobs(choice: &Fields) -> Result<Vec<TokenLogprob>, String> {
    let logprobs: Option<Fields> = member(choice, "logprobs")?;
    let content: Option<Vec<TokenLogprob>> = logprobs.map_or(Ok(None), |logprobs| member(&logprobs, "content"))?;
    let whole = |mut scored: TokenLogprob| {
        scored.top_logprobs.get_or_insert_default();
        scored.with_bytes()
    };
    Ok(content.unwrap_or_default().into_iter().map(whole).collect())
}

#[derive(Deserialize)]
struct AnswerFunction {
    name: String,
    arguments: Option<Box<RawValue>>,
}

/// The calls with their ids, also the single `function_call` of older servers.
fn calls(message: &Fields) -> Result<Vec<(Option<String>, AnswerFunction)>, String> {
    #[derive(Deserialize)]
    struct AnswerToolCall {
        id: Option<String>,
        function: AnswerFunction,
    }

    let calls: Vec<AnswerToolCall> = member(message, "tool_calls")?.unwrap_or_default();
    if !calls.is_empty() {
        return Ok(calls.into_iter().map(|call| (call.id, call.function)).collect());
    }
    let call: Option<AnswerFunction> = member(message, "function_call")?;
    Ok(call.into_iter().map(|call| (None, call)).collect())
}

fn member<T: DeserializeOwned>(of: &Fields, name: &str) -> Result<Option<T>, String> {
    of.get(name)
        .map_err(|error| format!("The upstream's answer has a '{name}' that cannot be read: {}.", plainly(&error)))
}

#[cfg(test)]
mod tests;

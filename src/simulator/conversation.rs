//! Reads the conversation in a request: the user's texts, the model's answers and calls, and the outputs of tools.
//!
//! Only scripted requests are read like this: reading costs more than answering.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::answers::Kind;

/// An entry of a conversation, in the same form for both APIs.
#[derive(Debug, PartialEq, Eq)]
pub enum ConversationEntry {
    /// A message of the user.
    User(String),
    /// A message of the model without a call.
    Reply,
    /// A call by the model: its id, and its arguments if they are a string.
    Call(String, Option<String>),
    /// The output of the call with this id.
    Output(String, String),
    /// A point before which every call must have its output.
    Break,
}

/// A violation of the rules of strict servers: every call has one output, and every output has a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mispaired {
    /// An output without a call, or for a call that has one already.
    #[error("No tool call is open for the tool output with call id '{0}'.")]
    Output(String),
    /// A call without an output before the next message, or at the end.
    #[error("No tool output was found for the tool call with id '{0}'.")]
    Call(String),
}

/// The entries in a request body, or `None` if it is not a conversation.
pub fn read(kind: Kind, body: &[u8]) -> Option<Vec<ConversationEntry>> {
    match kind {
        Kind::Chat => serde_json::from_slice::<ChatBody>(body).ok().map(ChatBody::entries),
        Kind::Response => serde_json::from_slice::<ResponsesBody>(body).ok().map(ResponsesBody::entries),
        _ => None,
    }
}

/// How often the model called tools, once or several at a time: an output ends a turn.
pub fn turns(entries: &[ConversationEntry]) -> usize {
    let mut turns = 0;
    let mut is_calling = false;
    for entry in entries {
        match entry {
            ConversationEntry::Call(..) if !is_calling => {
                turns += 1;
                is_calling = true;
            }
            ConversationEntry::Output(..) | ConversationEntry::Break | ConversationEntry::User(_) => is_calling = false,
            ConversationEntry::Call(..) | ConversationEntry::Reply => {}
        }
    }
    turns
}

/// The id of the first call whose arguments are not a string with a JSON object, which servers need to show the call to
/// the model.
pub fn unreadable_call(entries: &[ConversationEntry]) -> Option<&str> {
    entries.iter().find_map(|entry| match entry {
        ConversationEntry::Call(id, arguments) => {
            let is_object = |text: &String| serde_json::from_str::<Map<String, Value>>(text).is_ok();
            (!arguments.as_ref().is_some_and(is_object)).then_some(id.as_str())
        }
        _ => None,
    })
}

/// The outputs of tools, in the order of their calls.
///
/// # Errors
/// A call that does not have exactly one output before the next message of the model.
pub fn outputs(entries: &[ConversationEntry]) -> Result<Vec<&str>, Mispaired> {
    let mut calls: Vec<(&str, Option<&str>)> = Vec::new();
    // The position of the turn's first call. Another turn may use the same ids.
    let mut turn = 0;
    let mut is_calling = false;
    let settled = |calls: &[(&str, Option<&str>)]| match calls.iter().find(|(_, output)| output.is_none()) {
        Some((id, _)) => Err(Mispaired::Call((*id).to_owned())),
        None => Ok(calls.len()),
    };
    for entry in entries {
        match entry {
            ConversationEntry::Call(id, _) => {
                if !is_calling {
                    turn += settled(&calls[turn..])?;
                }
                is_calling = true;
                calls.push((id, None));
            }
            ConversationEntry::Output(id, text) => {
                is_calling = false;
                let open = calls[turn..].iter_mut().find(|(call, output)| call == id && output.is_none());
                open.ok_or_else(|| Mispaired::Output(id.clone()))?.1 = Some(text);
            }
            ConversationEntry::User(_) | ConversationEntry::Break => {
                is_calling = false;
                turn += settled(&calls[turn..])?;
            }
            ConversationEntry::Reply => {}
        }
    }
    settled(&calls[turn..])?;
    Ok(calls.into_iter().filter_map(|(_, output)| output).collect())
}

#[derive(Deserialize)]
struct ChatBody {
    messages: Vec<ChatMessage>,
}

#[derive(Deserialize)]
struct ChatMessage {
    role: String,
    content: Option<MessageContent>,
    tool_calls: Option<Vec<MessageToolCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
struct MessageToolCall {
    id: String,
    function: CalledFunction,
}

#[derive(Deserialize)]
struct CalledFunction {
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MessageContent {
    Text(String),
    Parts(Vec<MessagePart>),
}

#[derive(Deserialize)]
struct MessagePart {
    text: Option<String>,
}

impl MessageContent {
    fn text(content: Option<Self>) -> String {
        match content {
            Some(Self::Text(text)) => text,
            Some(Self::Parts(parts)) => parts.into_iter().filter_map(|part| part.text).collect(),
            None => String::new(),
        }
    }
}

impl ChatBody {
    fn entries(self) -> Vec<ConversationEntry> {
        self.messages.into_iter().flat_map(ChatMessage::entries).collect()
    }
}

impl ChatMessage {
    fn entries(self) -> Vec<ConversationEntry> {
        let calls = self.tool_calls.unwrap_or_default();
        match self.role.as_str() {
            "user" => vec![ConversationEntry::User(MessageContent::text(self.content))],
            "assistant" if calls.is_empty() => vec![ConversationEntry::Break, ConversationEntry::Reply],
            "assistant" => {
                let calls =
                    calls.into_iter().map(|call| ConversationEntry::Call(call.id, text(call.function.arguments)));
                std::iter::once(ConversationEntry::Break).chain(calls).collect()
            }
            "tool" => vec![ConversationEntry::Output(
                self.tool_call_id.unwrap_or_default(),
                MessageContent::text(self.content),
            )],
            _ => vec![ConversationEntry::Break],
        }
    }
}

#[derive(Deserialize)]
struct ResponsesBody {
    input: ResponsesInput,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ResponsesInput {
    Text(String),
    Items(Vec<InputItem>),
}

#[derive(Deserialize)]
struct InputItem {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    content: Option<MessageContent>,
    call_id: Option<String>,
    #[serde(default)]
    arguments: Value,
    output: Option<MessageContent>,
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

impl ResponsesBody {
    fn entries(self) -> Vec<ConversationEntry> {
        match self.input {
            ResponsesInput::Text(text) => vec![ConversationEntry::User(text)],
            ResponsesInput::Items(items) => items.into_iter().filter_map(InputItem::entry).collect(),
        }
    }
}

impl InputItem {
    fn entry(self) -> Option<ConversationEntry> {
        let call_id = self.call_id.unwrap_or_default();
        match (self.kind.as_deref().unwrap_or("message"), self.role.as_deref()) {
            ("function_call", _) => Some(ConversationEntry::Call(call_id, text(self.arguments))),
            ("function_call_output", _) => Some(ConversationEntry::Output(call_id, MessageContent::text(self.output))),
            ("message", Some("user")) => Some(ConversationEntry::User(MessageContent::text(self.content))),
            // No `Break`: a message may stand beside the calls of its turn.
            ("message", Some("assistant")) => Some(ConversationEntry::Reply),
            ("message", _) => Some(ConversationEntry::Break),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ConversationEntry {
        ConversationEntry::Call(id.to_owned(), Some("{}".to_owned()))
    }

    fn output(id: &str) -> ConversationEntry {
        ConversationEntry::Output(id.to_owned(), format!("output of {id}"))
    }

    #[test]
    fn outputs_come_in_the_order_of_their_calls() {
        let conversation =
            [call("a"), call("b"), output("b"), output("a"), call("a"), output("a"), ConversationEntry::Reply];

        assert_eq!(outputs(&conversation), Ok(vec!["output of a", "output of b", "output of a"]));
        assert_eq!(turns(&conversation), 2);
    }

    #[test]
    fn every_call_has_exactly_one_output_before_the_model_speaks_again() {
        let missing = |id: &str| Err(Mispaired::Call(id.to_owned()));
        let stray = |id: &str| Err(Mispaired::Output(id.to_owned()));
        let cases = [
            (vec![call("a")], missing("a")),
            (vec![call("a"), call("b"), output("a"), call("c"), output("b")], missing("b")),
            (vec![call("a"), ConversationEntry::User(String::new()), output("a")], missing("a")),
            (vec![call("a"), output("unknown")], stray("unknown")),
            (vec![call("a"), output("a"), output("a")], stray("a")),
            (vec![call("a"), output("a"), call("b"), output("a")], stray("a")),
        ];
        for (conversation, expected) in cases {
            assert_eq!(outputs(&conversation), expected, "{conversation:?}");
        }
    }
}

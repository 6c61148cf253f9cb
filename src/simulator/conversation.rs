//! What a request says went before: the user's texts, the model's answers and calls, and what the tools put out.
//!
//! Only scripted requests are read like this; it costs more than answering.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::answers::Kind;

/// Something in a conversation, whichever API it was sent through.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// A message of the user.
    User(String),
    /// A message of the model that is no call.
    Reply,
    /// A call by the model, with its id and its arguments; none if they are no text.
    Call(String, Option<String>),
    /// What a tool put out for the call with this id.
    Output(String, String),
    /// Something before which every call must have its output.
    Break,
}

/// A conversation that breaks the rules of strict servers: which calls have outputs, and which outputs have calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mispaired {
    /// An output whose call is not there, or has one already.
    #[error("No tool call is open for the tool output with call id '{0}'.")]
    Output(String),
    /// A call that the conversation went on from, or ends with.
    #[error("No tool output was found for the tool call with id '{0}'.")]
    Call(String),
}

/// The entries in a request body, or `None` if it is not a conversation.
pub fn read(kind: Kind, body: &[u8]) -> Option<Vec<Entry>> {
    match kind {
        Kind::Chat => serde_json::from_slice::<ChatBody>(body).ok().map(ChatBody::entries),
        Kind::Response => serde_json::from_slice::<ResponsesBody>(body).ok().map(ResponsesBody::entries),
        Kind::Completion | Kind::Embedding | Kind::Moderation => None,
    }
}

/// How often the model called tools, once or several at a time: an output ends a turn.
pub fn turns(entries: &[Entry]) -> usize {
    let mut turns = 0;
    let mut is_calling = false;
    for entry in entries {
        match entry {
            Entry::Call(..) if !is_calling => {
                turns += 1;
                is_calling = true;
            }
            Entry::Output(..) | Entry::Break | Entry::User(_) => is_calling = false,
            Entry::Call(..) | Entry::Reply => {}
        }
    }
    turns
}

/// The id of the first call whose arguments are not what servers read to show them to the model: text that is a JSON
/// object.
pub fn unreadable_call(entries: &[Entry]) -> Option<&str> {
    entries.iter().find_map(|entry| match entry {
        Entry::Call(id, arguments) => {
            let is_object = |text: &String| serde_json::from_str::<Map<String, Value>>(text).is_ok();
            (!arguments.as_ref().is_some_and(is_object)).then_some(id.as_str())
        }
        _ => None,
    })
}

/// What the tools put out, in the order of their calls.
///
/// # Errors
/// A call does not have exactly one output before the model speaks again.
pub fn outputs(entries: &[Entry]) -> Result<Vec<&str>, Mispaired> {
    let mut calls: Vec<(&str, Option<&str>)> = Vec::new();
    // Where the calls of the turn begin. Ids may come up again in another.
    let mut turn = 0;
    let mut is_calling = false;
    let settled = |calls: &[(&str, Option<&str>)]| match calls.iter().find(|(_, output)| output.is_none()) {
        Some((id, _)) => Err(Mispaired::Call((*id).to_owned())),
        None => Ok(calls.len()),
    };
    for entry in entries {
        match entry {
            Entry::Call(id, _) => {
                if !is_calling {
                    turn += settled(&calls[turn..])?;
                }
                is_calling = true;
                calls.push((id, None));
            }
            Entry::Output(id, text) => {
                is_calling = false;
                let open = calls[turn..].iter_mut().find(|(call, output)| call == id && output.is_none());
                open.ok_or_else(|| Mispaired::Output(id.clone()))?.1 = Some(text);
            }
            Entry::User(_) | Entry::Break => {
                is_calling = false;
                turn += settled(&calls[turn..])?;
            }
            Entry::Reply => {}
        }
    }
    settled(&calls[turn..])?;
    Ok(calls.into_iter().filter_map(|(_, output)| output).collect())
}

#[derive(Deserialize)]
struct ChatBody {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
struct ToolCall {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

impl Content {
    fn text(content: Option<Self>) -> String {
        match content {
            Some(Self::Text(text)) => text,
            Some(Self::Parts(parts)) => parts.into_iter().filter_map(|part| part.text).collect(),
            None => String::new(),
        }
    }
}

impl ChatBody {
    fn entries(self) -> Vec<Entry> {
        self.messages.into_iter().flat_map(Message::entries).collect()
    }
}

impl Message {
    fn entries(self) -> Vec<Entry> {
        let calls = self.tool_calls.unwrap_or_default();
        match self.role.as_str() {
            "user" => vec![Entry::User(Content::text(self.content))],
            "assistant" if calls.is_empty() => vec![Entry::Break, Entry::Reply],
            "assistant" => {
                let calls = calls.into_iter().map(|call| Entry::Call(call.id, text(call.function.arguments)));
                std::iter::once(Entry::Break).chain(calls).collect()
            }
            "tool" => vec![Entry::Output(self.tool_call_id.unwrap_or_default(), Content::text(self.content))],
            _ => vec![Entry::Break],
        }
    }
}

#[derive(Deserialize)]
struct ResponsesBody {
    input: Input,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Items(Vec<Item>),
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    role: Option<String>,
    content: Option<Content>,
    call_id: Option<String>,
    #[serde(default)]
    arguments: Value,
    output: Option<Content>,
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

impl ResponsesBody {
    fn entries(self) -> Vec<Entry> {
        match self.input {
            Input::Text(text) => vec![Entry::User(text)],
            Input::Items(items) => items.into_iter().filter_map(Item::entry).collect(),
        }
    }
}

impl Item {
    fn entry(self) -> Option<Entry> {
        let call_id = self.call_id.unwrap_or_default();
        match (self.kind.as_deref().unwrap_or("message"), self.role.as_deref()) {
            ("function_call", _) => Some(Entry::Call(call_id, text(self.arguments))),
            ("function_call_output", _) => Some(Entry::Output(call_id, Content::text(self.output))),
            ("message", Some("user")) => Some(Entry::User(Content::text(self.content))),
            // No `Break`: a message may stand beside the calls of its turn.
            ("message", Some("assistant")) => Some(Entry::Reply),
            ("message", _) => Some(Entry::Break),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Entry {
        Entry::Call(id.to_owned(), Some("{}".to_owned()))
    }

    fn output(id: &str) -> Entry {
        Entry::Output(id.to_owned(), format!("output of {id}"))
    }

    #[test]
    fn outputs_come_in_the_order_of_their_calls() {
        let conversation = [call("a"), call("b"), output("b"), output("a"), call("a"), output("a"), Entry::Reply];

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
            (vec![call("a"), Entry::User(String::new()), output("a")], missing("a")),
            (vec![call("a"), output("unknown")], stray("unknown")),
            (vec![call("a"), output("a"), output("a")], stray("a")),
            (vec![call("a"), output("a"), call("b"), output("a")], stray("a")),
        ];
        for (conversation, expected) in cases {
            assert_eq!(outputs(&conversation), expected, "{conversation:?}");
        }
    }
}

//! The ordinary object that the events of a stream amount to.
//!
//! A Responses stream ends with an event that has the whole response. The chunks of the others are put together: texts
//! are joined, lists are extended, items of lists that have an `index` are put together with those of the same one, and
//! of everything else the last that is not null counts.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::domain::answer::{repaired, status_of_error, without_lone_surrogates};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::domain::response::Fields;

/// Members that are names, which some servers repeat in every chunk.
const NAMES: [&str; 7] = ["role", "id", "type", "name", "format", "finish_reason", "native_finish_reason"];

/// Types of events of a Responses stream whose generation has not begun.
const WAITING: [&str; 3] = ["response.created", "response.queued", "response.in_progress"];

/// About the bytes of a choice that says nothing.
const CHOICE_BYTES: usize = 256;

/// A stream that is put together.
#[derive(Debug)]
pub(in crate::upstream) struct Fold {
    endpoint: Endpoint,
    /// The members of the object but for its choices.
    object: Fields,
    choices: BTreeMap<u64, Choice>,
    /// Bytes of what was put together.
    held: usize,
    has_begun: bool,
}

/// What an event ends a stream with.
#[derive(Debug, PartialEq)]
pub(in crate::upstream) enum Folded {
    /// The answer: this status and this body.
    Whole(u16, Bytes),
    /// The stream cannot be understood: why.
    Unreadable(String),
}

#[derive(Debug, Default)]
struct Choice {
    /// The message, or for completions the text.
    said: Map<String, Value>,
    /// The other members, such as `finish_reason` and `logprobs`.
    others: Map<String, Value>,
}

impl Fold {
    pub(in crate::upstream) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, object: Fields::default(), choices: BTreeMap::new(), held: 0, has_begun: false }
    }

    /// Whether the server has begun to generate: from then on, silence is a stall. Before, it may have calls of others
    /// to do first.
    pub(in crate::upstream) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes of what was put together so far.
    pub(in crate::upstream) fn held(&self) -> usize {
        self.held
    }

    /// Takes in the data of an event, which may be an `error`. What the answer is, if it ends the stream.
    pub(in crate::upstream) fn add(&mut self, data: &[u8], is_error: bool) -> Option<Folded> {
        if data.trim_ascii() == b"[DONE]" {
            return Some(self.end());
        }
        let chunk = Fields::read(data).ok().or_else(|| Fields::read(&repaired(data)?).ok());
        let Some(mut chunk) = chunk else {
            return Some(Folded::Unreadable("an event of its stream is not a JSON object".to_owned()));
        };
        if chunk.raw("error").is_some() {
            return Some(Folded::Whole(status_of(&chunk), data.to_vec().into()));
        }
        // Some servers send the error itself.
        let object: Option<String> = chunk.get("object").ok().flatten();
        if is_error || object.as_deref() == Some("error") {
            let mut body = Fields::default();
            body.set("error", &chunk);
            return Some(Folded::Whole(status_of(&body), body.to_json().into()));
        }
        if self.endpoint == Endpoint::Responses {
            let kind: Option<String> = chunk.get("type").ok().flatten();
            self.has_begun |= kind.is_some_and(|kind| !WAITING.contains(&&*kind));
            return last_response(&chunk);
        }
        self.has_begun = true;
        let choices = chunk
            .remove("choices")
            .filter(|choices| choices.get() != "null")
            .map(|choices| serde_json::from_slice(&without_lone_surrogates(choices.get().as_bytes())));
        match choices {
            None => {}
            Some(Ok(choices)) => Vec::into_iter(choices).for_each(|choice| self.add_choice(choice)),
            Some(Err(_)) => return Some(Folded::Unreadable("its stream has choices that are no list".to_owned())),
        }
        for (name, value) in chunk.iter().filter(|(_, value)| value.get() != "null") {
            if self.object.raw(name).is_none() {
                self.held += name.len() + value.get().len();
            }
            self.object.set(name, value);
        }
        None
    }

    fn add_choice(&mut self, mut choice: Map<String, Value>) {
        let index = choice.remove("index").and_then(|index| index.as_u64()).unwrap_or(0);
        if !self.choices.contains_key(&index) {
            self.held += CHOICE_BYTES;
        }
        let known = self.choices.entry(index).or_default();
        let said = match self.endpoint {
            Endpoint::ChatCompletions => match choice.remove("delta") {
                Some(Value::Object(delta)) => delta,
                _ => Map::new(),
            },
            _ => choice.remove("text").map(|text| Map::from_iter([("text".to_owned(), text)])).unwrap_or_default(),
        };
        self.held += merge(&mut known.said, said) + merge(&mut known.others, choice);
    }

    /// What the answer is if the connection ends here. An end without `[DONE]` is one if every choice has ended.
    pub(in crate::upstream) fn at_end_of_connection(mut self) -> Option<Folded> {
        self.is_whole().then(|| self.end())
    }

    /// Whether there are choices, and each says why it has ended.
    fn is_whole(&self) -> bool {
        let has_ended = |choice: &Choice| choice.others.get("finish_reason").is_some_and(|reason| !reason.is_null());
        !self.choices.is_empty() && self.choices.values().all(has_ended)
    }

    fn end(&mut self) -> Folded {
        if !self.is_whole() {
            return Folded::Unreadable("its stream has ended in the middle of an answer".to_owned());
        }
        let is_chat = self.endpoint == Endpoint::ChatCompletions;
        let choices = std::mem::take(&mut self.choices).into_iter();
        let choices: Vec<Value> = choices.map(|(index, choice)| choice.whole(index, is_chat)).collect();
        self.object.set("object", if is_chat { "chat.completion" } else { "text_completion" });
        self.object.set("choices", &choices);
        Folded::Whole(200, self.object.to_json().into())
    }
}

impl Choice {
    fn whole(mut self, index: u64, is_chat: bool) -> Value {
        let mut whole = Map::from_iter([("index".to_owned(), json!(index))]);
        if is_chat {
            self.said.entry("role").or_insert_with(|| json!("assistant"));
            self.said.entry("content").or_insert(Value::Null);
            if let Some(Value::Array(calls)) = self.said.get_mut("tool_calls") {
                calls.sort_by_key(index_of);
                calls.iter_mut().filter_map(Value::as_object_mut).for_each(|call| drop(call.remove("index")));
            }
            whole.insert("message".to_owned(), Value::Object(self.said));
        } else {
            whole.extend(self.said);
        }
        whole.extend(self.others);
        whole.entry("finish_reason").or_insert(Value::Null);
        whole.entry("logprobs").or_insert(Value::Null);
        Value::Object(whole)
    }
}

/// Adds the members of one part of an object to what is known of it. Returns by how many bytes that grew.
fn merge(known: &mut Map<String, Value>, part: Map<String, Value>) -> usize {
    part.into_iter().map(|(name, value)| merge_member(known, name, value)).sum()
}

fn merge_member(known: &mut Map<String, Value>, name: String, value: Value) -> usize {
    let is_name = NAMES.contains(&&*name);
    match (known.get_mut(&name), value) {
        (Some(was), Value::Null) if !was.is_null() => 0,
        (Some(Value::String(was)), Value::String(more)) if !is_name => {
            was.push_str(&more);
            more.len()
        }
        (Some(Value::String(was)), Value::String(more)) if is_name && (more.is_empty() || !was.is_empty()) => 0,
        (Some(Value::Array(was)), Value::Array(more)) => more.into_iter().map(|item| merge_item(was, item)).sum(),
        (Some(Value::Object(was)), Value::Object(more)) => merge(was, more),
        (_, Value::Array(items)) => {
            let mut list = Vec::new();
            let grown = items.into_iter().map(|item| merge_item(&mut list, item)).sum();
            known.insert(name, Value::Array(list));
            grown
        }
        (_, value) => {
            let grown = name.len() + size(&value);
            known.insert(name, value);
            grown
        }
    }
}

fn index_of(item: &Value) -> Option<u64> {
    item.get("index").and_then(Value::as_u64)
}

/// Whether a part of a list is one of a call of a tool without its name.
fn is_rest_of_call(item: &Value) -> bool {
    let name = |function: &Value| function.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    item.get("function").is_some_and(|function| !name(function))
}

fn merge_item(list: &mut Vec<Value>, item: Value) -> usize {
    let id_of = |item: &Value| item.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    let (index, id) = (index_of(&item), id_of(&item));
    let same = match index {
        Some(_) => list.iter_mut().rfind(|known| index_of(known) == index),
        // Some servers do not number the calls of a turn: what has neither an id nor a name goes on with the last one.
        None if is_rest_of_call(&item) || id.is_some() => {
            list.last_mut().filter(|last| id.is_none() || id_of(last) == id)
        }
        None => None,
    };
    // Others number all alike: another id is another call.
    let same = same.filter(|known| id.is_none() || id_of(known).is_none() || id_of(known) == id);
    match (same, item) {
        (Some(Value::Object(known)), Value::Object(part)) => merge(known, part),
        (_, item) => {
            let grown = size(&item);
            list.push(item);
            grown
        }
    }
}

/// About the bytes that a value takes.
fn size(value: &Value) -> usize {
    const SMALL: usize = 16;
    SMALL
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(members) => members.iter().map(|(name, value)| name.len() + size(value)).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// The response of an event that is the last of a Responses stream.
fn last_response(event: &Fields) -> Option<Folded> {
    let kind: Option<String> = event.get("type").ok().flatten();
    match kind.as_deref() {
        Some("response.completed" | "response.incomplete" | "response.failed") => {
            let response = event.raw("response").map(RawValue::get);
            Some(match response {
                Some(response) => Folded::Whole(200, response.to_owned().into()),
                None => Folded::Unreadable("the last event of its stream has no response".to_owned()),
            })
        }
        Some("error") => {
            let error = json!({ "error": event });
            Some(Folded::Whole(500, error.to_string().into()))
        }
        _ => None,
    }
}

/// The status that an error in a stream stands for.
fn status_of(chunk: &Fields) -> u16 {
    chunk.raw("error").and_then(status_of_error).unwrap_or(502)
}

impl Folded {
    /// The answer with the headers of `response`.
    pub(in crate::upstream) fn in_place_of(self, response: HttpResponse) -> Result<HttpResponse, String> {
        match self {
            Self::Whole(status, body) => Ok(HttpResponse { status, body, ..response }),
            Self::Unreadable(why) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests;

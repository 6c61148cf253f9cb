//! A turn: the answer of a model to one call, whichever API was called.

use std::collections::HashSet;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Fields, StepPath, ToolCall};
use crate::domain::ids::RequestId;
use crate::domain::usage::{Usage, WireUsage};

/// A model's answer to one call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// The model that answered, as it names itself.
    pub model: String,
    /// When it answered, in seconds since the Unix epoch.
    pub created_at: i64,
    /// How it ended.
    pub end: TurnEnd,
    /// Output items as the Responses API has them, in order.
    pub output: Vec<Box<RawValue>>,
    /// The token usage; `None` if the upstream does not report it.
    pub usage: Option<TokenUsage>,
}

impl Turn {
    /// The function calls of the turn, in order. The number of a call is its position among them.
    #[must_use]
    pub fn calls(&self) -> Vec<ToolCall> {
        self.items().filter_map(|(_, call)| call).map(|(_, call)| call).collect()
    }

    /// The output items in order. A function call comes with its number and its content.
    pub fn items(&self) -> impl Iterator<Item = (&RawValue, Option<(u32, ToolCall)>)> {
        self.output.iter().scan(0, |calls, item| {
            let call = OutputItem::of(item).into_call().map(|call| (*calls, call));
            *calls += u32::from(call.is_some());
            Some((&**item, call))
        })
    }

    /// Whether the model asks the client for something other than a function's output, such as that of a custom tool.
    #[must_use]
    pub fn asks_client(&self) -> bool {
        const ASKING: [&str; 6] = [
            "apply_patch_call",
            "computer_call",
            "custom_tool_call",
            "local_shell_call",
            "mcp_approval_request",
            "shell_call",
        ];
        self.output.iter().any(|item| ASKING.contains(&&*OutputItem::of(item).r#type))
    }

    /// Whether any item has an id that the upstream gave it, so that the upstream may know the item by it. `ids` are
    /// those of any step of the row.
    #[must_use]
    pub fn has_ids_of_upstream(&self, ids: &ItemIds) -> bool {
        #[derive(Deserialize)]
        struct ItemId {
            id: String,
        }
        let read = self.output.iter().filter_map(|item| serde_json::from_str::<ItemId>(item.get()).ok());
        read.into_iter().any(|item| !ids.are_of_row(&item.id))
    }

    /// The text of the answer.
    #[must_use]
    pub fn text(&self) -> String {
        let parts = self.output.iter().flat_map(|item| OutputItem::of(item).content);
        parts.filter(|part| part.r#type == "output_text").map(|part| part.text).collect()
    }

    /// Whether the model refuses to answer.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.output.iter().flat_map(|item| OutputItem::of(item).content).any(|part| part.r#type == "refusal")
    }
}

/// The members of an output item that are read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputItem {
    r#type: String,
    call_id: String,
    name: String,
    arguments: String,
    #[serde(deserialize_with = "texts")]
    content: Vec<OutputText>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputText {
    r#type: String,
    text: String,
}

impl OutputItem {
    /// An item of an unknown shape is neither a call nor text.
    fn of(item: &RawValue) -> Self {
        serde_json::from_str(item.get()).unwrap_or_default()
    }

    fn into_call(self) -> Option<ToolCall> {
        let Self { call_id, name, arguments, .. } = self;
        (self.r#type == "function_call").then_some(ToolCall { call_id, name, arguments })
    }
}

/// The parts of a content that say something.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OutputText>, D::Error> {
    let parts = Option::<Vec<OutputText>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(parts.into_iter().filter(|part| matches!(part.r#type.as_str(), "output_text" | "refusal")).collect())
}

/// Why an answer could not be read as a turn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// The upstream gave up, as it does when it is restarted. A retry can help.
    #[error("{0}")]
    MayPass(String),
    /// The answer does not have the form of the API. A retry does not help.
    #[error("{0}")]
    Final(String),
}

impl From<String> for BadAnswer {
    fn from(wrong: String) -> Self {
        Self::Final(wrong)
    }
}

impl From<&str> for BadAnswer {
    fn from(wrong: &str) -> Self {
        Self::Final(wrong.to_owned())
    }
}

/// How a model's answer ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnEnd {
    /// By itself.
    Completed,
    /// Cut off: `incomplete_details`.
    Incomplete(Box<RawValue>),
    /// The upstream reports a failure: `error`.
    Failed(Box<RawValue>),
}

/// Tokens used, with every detail a response shows (contract §10.6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// The counts that a batch sums up.
    #[serde(flatten)]
    pub usage: Usage,
    /// Tokens of the prompt that were written to a cache.
    pub cache_write_tokens: u64,
}

impl TokenUsage {
    /// The `usage` of an answer, in the names of either API; `None` if it cannot be read.
    pub(crate) fn read(answer: &Fields) -> Option<Self> {
        let wire: WireUsage = answer.get("usage").ok()??;
        Some(Self { cache_write_tokens: wire.cache_write_tokens(), usage: wire.into() })
    }

    /// Adds `other` to this, each count capped rather than wrapped.
    pub fn add(&mut self, other: Self) {
        self.usage.add(other.usage);
        self.cache_write_tokens = self.cache_write_tokens.saturating_add(other.cache_write_tokens);
    }
}

/// A member of a request that has no counterpart in the upstream's API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsupported {
    /// Its path in the body, such as `tools[1]`.
    pub param: String,
    /// What to do about it.
    pub message: String,
}

/// Ids for the output items of one model call, the same for every attempt.
#[derive(Debug, Clone)]
pub struct ItemIds(String);

impl ItemIds {
    /// Ids that contain `unique`, which identifies the call among all calls.
    #[must_use]
    pub fn new(unique: String) -> Self {
        Self(unique)
    }

    /// The ids of the step at `path` of a row.
    #[must_use]
    pub fn of_step(row: RequestId, path: &StepPath) -> Self {
        let digits = row.to_string().replace("batch_req_", "");
        let steps = path.to_string().replace('.', "_");
        Self(if steps.is_empty() { digits } else { format!("{digits}_{steps}") })
    }

    /// The id of the item at position `index`. `kind` is its prefix, such as `msg` or `fc`.
    #[must_use]
    pub fn id(&self, kind: &str, index: usize) -> String {
        format!("{kind}_{}_{index}", self.0)
    }

    /// Whether a text has an id in it that was made here for the same row.
    pub(crate) fn are_of_row(&self, text: &str) -> bool {
        let row = self.0.split('_').next().unwrap_or_default();
        text.match_indices(row).any(|(at, _)| text[..at].ends_with('_') && text[at + row.len()..].starts_with('_'))
    }

    /// The id of the call at position `index`: the given id, unless it is empty or one of `used`.
    pub(crate) fn call_id(&self, given: Option<String>, used: &mut HashSet<String>, index: usize) -> String {
        let id = given.filter(|id| !id.is_empty() && !used.contains(id)).unwrap_or_else(|| self.id("call", index));
        used.insert(id.clone());
        id
    }
}

/// A point in time of an answer in whole seconds since the Unix epoch; 0 if it is absent.
pub(crate) fn seconds(answer: &Fields, name: &str) -> i64 {
    let whole = |number: &RawValue| number.get().split('.').next()?.parse().ok();
    answer.raw(name).and_then(whole).unwrap_or_default()
}

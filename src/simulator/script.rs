//! Scripts: a request can determine its answers, turn by turn: calls of tools, texts, refusals and failures.
//!
//! The script is part of a message of the user, so every request of a conversation carries it. The next answer follows
//! from the conversation alone.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::Value;

use super::answers::Kind;
use super::conversation::{self, ConversationEntry};
use super::draws::Draws;
use super::failure::SimulatedFailure;

const MARK: &str = "simulate:";

static MARK_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));

/// The JSON after `simulate:`. The documentation of the simulator explains its members.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Script {
    turns: Vec<Vec<ScriptedCall>>,
    endless: bool,
    answer: Option<String>,
    answers: Vec<String>,
    refuse: Option<String>,
    reasoning: Option<String>,
    fail: BTreeMap<usize, u16>,
    fail_once: BTreeMap<usize, u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptedCall {
    id: Option<String>,
    name: String,
    #[serde(default)]
    arguments: Value,
}

/// The answer to a scripted request.
pub struct Cue {
    /// Reasoning before the act.
    pub reasoning: Option<String>,
    /// The rest of the answer.
    pub act: Act,
}

/// What the model does.
pub enum Act {
    /// It calls tools.
    Calls(Vec<SimulatedCall>),
    /// It answers with a text.
    Says(String),
    /// It refuses.
    Refuses(String),
}

/// A call of a tool.
pub struct SimulatedCall {
    /// The id that its output refers to.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as text, which need not be JSON.
    pub arguments: String,
}

/// The next answer in the conversation in `body`, or `None` if it has no script. `repeat` is the number of earlier
/// requests with the same `Idempotency-Key`.
///
/// # Errors
/// The script asks for a failure or cannot be read, or the conversation is one that servers refuse.
pub fn cue(kind: Kind, body: &[u8], seed: u64, repeat: u32) -> Result<Option<Cue>, SimulatedFailure> {
    if MARK_FINDER.find(body).is_none() {
        return Ok(None);
    }
    let Some(entries) = conversation::read(kind, body) else { return Ok(None) };
    let last = entries.iter().enumerate().rev().find_map(|(at, entry)| Some((at, script_in(entry)?)));
    let Some((at, text)) = last else { return Ok(None) };

    let script: Script =
        serde_json::from_str(text).map_err(|error| SimulatedFailure::InvalidScript(error.to_string()))?;
    if let Some(id) = conversation::unreadable_call(&entries) {
        return Err(SimulatedFailure::InvalidArguments(id.to_owned()));
    }
    let outputs = conversation::outputs(&entries).map_err(SimulatedFailure::Mispaired)?;
    let turn = conversation::turns(&entries[at..]);
    let reply = entries[at..].iter().filter(|entry| **entry == ConversationEntry::Reply).count();
    let once = (repeat == 0).then(|| script.fail_once.get(&(turn + reply))).flatten();
    if let Some(status) = once.or_else(|| script.fail.get(&(turn + reply))) {
        return Err(SimulatedFailure::scripted(*status));
    }
    // A repeated request gets the same ids of calls, so that it continues as the same conversation.
    Ok(Some(script.cue(turn, reply, &outputs, Draws::new(seed, 0, b"", body))))
}

fn script_in(entry: &ConversationEntry) -> Option<&str> {
    match entry {
        ConversationEntry::User(text) => text.strip_prefix(MARK),
        _ => None,
    }
}

impl Script {
    fn cue(self, turn: usize, reply: usize, outputs: &[&str], mut draws: Draws) -> Cue {
        let due = self.turns.get(turn).or_else(|| self.turns.last().filter(|_| self.endless));
        let act = if let Some(calls) = due {
            Act::Calls(calls.iter().map(|call| call.clone().drawn(&mut draws)).collect())
        } else if let Some(refusal) = self.refuse {
            Act::Refuses(refusal)
        } else {
            let text = self.answers.get(reply).or(self.answers.last()).cloned().or(self.answer);
            Act::Says(text.unwrap_or_else(|| outputs.join(" | ")))
        };
        Cue { reasoning: self.reasoning, act }
    }
}

impl ScriptedCall {
    fn drawn(self, draws: &mut Draws) -> SimulatedCall {
        let id = draws.id() >> 32;
        let arguments = match self.arguments {
            Value::String(text) => text,
            Value::Null => "{}".to_owned(),
            value => value.to_string(),
        };
        SimulatedCall { id: self.id.unwrap_or_else(|| format!("call_{id:024x}")), name: self.name, arguments }
    }
}

//! Steps: the calls that a row consists of, and their states.
//!
//! A step is identified by its path in the tree of steps, which is the same for every attempt: `2` is the third call of
//! the model, `2.0` the first tool that the model called in that turn, and, if that tool is an agent, `2.0.0` the
//! agent's first call of its own model. The idempotency key of a call is derived from the path.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Turn;
use crate::domain::text_enum::text_enum;
use crate::domain::time::Timestamp;

/// The path of a step in the tree of its row's steps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct StepPath(Vec<u32>);

impl StepPath {
    /// The scope of the row itself: the parent of its model's calls.
    #[must_use]
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// The step that is number `no` below this one.
    #[must_use]
    pub fn child(&self, no: u32) -> Self {
        let mut path = self.0.clone();
        path.push(no);
        Self(path)
    }

    /// The step this one is part of; `None` for the root, the root for the row's own model calls.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// The position of the step among its siblings.
    #[must_use]
    pub fn no(&self) -> u32 {
        self.0.last().copied().unwrap_or_default()
    }

    /// How deep agents are nested in this scope: 0 for the row itself.
    #[must_use]
    pub fn depth(&self) -> u32 {
        u32::try_from(self.0.len() / 2).unwrap_or(u32::MAX)
    }

    /// Whether the step is a model call. Paths of odd length are model calls, those of even length tool calls.
    #[must_use]
    pub fn is_model_call(&self) -> bool {
        self.0.len() % 2 == 1
    }

    /// Reads the printed form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split('.').map(|no| no.parse().ok()).collect::<Option<Vec<u32>>>().map(Self)
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, no) in self.0.iter().enumerate() {
            let dot = if position == 0 { "" } else { "." };
            write!(f, "{dot}{no}")?;
        }
        Ok(())
    }
}

impl From<StepPath> for String {
    fn from(path: StepPath) -> Self {
        path.to_string()
    }
}

/// A call of a tool, as the model asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The id that pairs the call with its output.
    #[serde(skip)]
    pub call_id: String,
    /// The function, by the name the model knows.
    pub name: String,
    /// The arguments as the model wrote them; they need not be valid JSON.
    pub arguments: String,
}

/// The output of a tool call. A failure is an output too, which the model sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// The tool's output, or the error.
    pub output: String,
    /// Whether it failed.
    pub is_error: bool,
}

/// What a step calls, and its result once it has succeeded.
#[derive(Debug, Clone)]
pub enum StepBody {
    /// A call of the model.
    ModelCall(Option<Turn>),
    /// A call of a tool.
    ToolCall(ToolCall, Option<ToolOutput>),
}

text_enum! {
    /// The state of a step.
    pub enum StepState {
        /// It has started. Its last attempt has no result yet, or failed.
        InProgress = "in_progress",
        /// It has succeeded, and is never repeated.
        Completed = "completed",
        /// It has failed for good.
        Failed = "failed",
    }
}

/// One call of a row.
#[derive(Debug, Clone)]
pub struct Step {
    /// The position of the step in the order in which the row's steps started, counted from 0.
    pub seq: u32,
    /// The path that identifies it.
    pub path: StepPath,
    /// What it calls, and the result.
    pub body: StepBody,
    /// Its state.
    pub state: StepState,
    /// The number of attempts so far.
    pub attempts: u32,
    /// Why its last attempt failed.
    pub error: Option<String>,
    /// When its last attempt started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Step {
    /// The turn of a model call that has ended.
    #[must_use]
    pub fn turn(&self) -> Option<&Turn> {
        match &self.body {
            StepBody::ModelCall(turn) => turn.as_ref(),
            StepBody::ToolCall(..) => None,
        }
    }

    /// The output of a tool call that has ended.
    #[must_use]
    pub fn output(&self) -> Option<&ToolOutput> {
        match &self.body {
            StepBody::ToolCall(_, output) => output.as_ref(),
            StepBody::ModelCall(_) => None,
        }
    }

    /// The request of a tool call, as JSON. The request of a model call is not kept: it follows from the row and the
    /// steps before it.
    #[must_use]
    pub fn request_json(&self) -> Option<String> {
        match &self.body {
            StepBody::ToolCall(call, _) => Some(serde_json::to_string(call).expect("texts are JSON")),
            StepBody::ModelCall(_) => None,
        }
    }

    /// The result of the step, as JSON.
    #[must_use]
    pub fn response_json(&self) -> Option<String> {
        match &self.body {
            StepBody::ModelCall(turn) => {
                turn.as_ref().map(|turn| serde_json::to_string(turn).expect("it came from JSON"))
            }
            StepBody::ToolCall(_, output) => {
                output.as_ref().map(|output| serde_json::to_string(output).expect("texts are JSON"))
            }
        }
    }
}

impl StepBody {
    /// Restores a step from the database; `None` if its JSON is not in the form that this program writes.
    #[must_use]
    pub fn of_kept(call_id: Option<String>, request: Option<&str>, response: Option<&str>) -> Option<Self> {
        fn read<T: for<'de> Deserialize<'de>>(json: &str) -> Option<T> {
            serde_json::from_str(json).ok()
        }
        // Absent JSON is normal; JSON that cannot be read is an error.
        match (call_id, response) {
            (None, None) => Some(Self::ModelCall(None)),
            (None, Some(turn)) => Some(Self::ModelCall(Some(read(turn)?))),
            (Some(call_id), response) => {
                let call = ToolCall { call_id, ..read(request?)? };
                let output = response.map(|output| read(output).ok_or(())).transpose().ok()?;
                Some(Self::ToolCall(call, output))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_where_a_step_stands() {
        let model = StepPath::root().child(2);
        let tool = model.child(0);
        let agents_model = tool.child(11);

        assert_eq!(agents_model.to_string(), "2.0.11");
        assert_eq!(StepPath::parse("2.0.11"), Some(agents_model.clone()));
        assert_eq!(StepPath::parse("2..1"), None);
        assert_eq!(agents_model.parent(), Some(tool.clone()));
        assert_eq!(model.parent(), Some(StepPath::root()));
        assert_eq!(StepPath::root().parent(), None);
        assert_eq!([model.is_model_call(), tool.is_model_call(), agents_model.is_model_call()], [true, false, true]);
        assert_eq!([StepPath::root().depth(), tool.depth(), agents_model.child(0).depth()], [0, 1, 2]);
        assert_eq!(agents_model.no(), 11);
    }
}

//! Decides the next step of a row from its steps so far. The decision is pure, so a resumed row decides as the
//! interrupted one would have.

use std::time::Duration;

use super::conversation::turns_of;
use super::{Step, StepPath, ToolCall, Turn, TurnEnd};
use crate::domain::text_enum::text_enum;

/// The fewest tokens that a model is asked for; with less left, the response ends.
const FEWEST_TOKENS: u64 = 16;

/// The limits of the steps of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls of the model, in each scope.
    pub iterations: u32,
    /// How deep agents may call agents.
    pub depth: u32,
    /// Calls of tools, including those of agents.
    pub tool_calls: u32,
    /// How long the calls of the row may take together. Calls that run side by side count once; pauses before retries
    /// do not count.
    pub time: Duration,
    /// Tokens of all calls of models; unlimited if unset.
    pub tokens: Option<u64>,
    /// Tokens of the answers of the row's own model; unlimited if unset.
    pub output_tokens: Option<u64>,
    /// Bytes of the outputs of tools.
    pub tool_output_bytes: u64,
}

text_enum! {
    /// A limit that ended a response, by its name there.
    pub enum Limit {
        /// Calls of the model.
        Iterations = "max_iterations",
        /// Agents within agents.
        Depth = "max_depth",
        /// Calls of tools.
        ToolCalls = "max_tool_calls",
        /// Time.
        Time = "max_time",
        /// Tokens of all calls.
        Tokens = "max_tokens",
        /// `max_output_tokens` of the row.
        OutputTokens = "max_output_tokens",
        /// Bytes of the outputs of tools.
        ToolOutput = "max_tool_output",
    }
}

/// Who runs a function that a model asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// This program.
    Here,
    /// This program, after approval.
    AfterApproval,
    /// The client.
    Elsewhere,
}

/// The rules of a decision.
pub struct Rules<'a> {
    /// The bounds.
    pub limits: &'a Limits,
    /// Who runs a function, by its name.
    pub served: &'a dyn Fn(&str) -> Served,
    /// Checks an answer against the form that is required of it; the error says what is wrong.
    pub check: &'a dyn Fn(&Turn) -> Result<(), String>,
    /// How often the model is asked to correct an answer.
    pub corrections: u32,
}

/// The next step of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Calls the model.
    CallModel,
    /// Calls these tools side by side, each with its number among the calls of its turn.
    CallTools(Vec<(u32, ToolCall)>),
    /// Nothing.
    End(ScopeEnd),
}

/// How a scope ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeEnd {
    /// The model has answered, or calls a tool that is not served here.
    Completed,
    /// The model was cut off.
    CutOff,
    /// A limit is reached.
    Reached(Limit),
    /// The upstream reports that the response failed.
    Failed,
    /// No answer had the required form, after all corrections: the error of the last one.
    Invalid(String),
}

impl ScopeEnd {
    /// The end of a scope with one turn.
    #[must_use]
    pub fn of(turn: &Turn) -> Self {
        match turn.end {
            TurnEnd::Completed => Self::Completed,
            TurnEnd::Incomplete(_) => Self::CutOff,
            TurnEnd::Failed(_) => Self::Failed,
        }
    }
}

/// What the steps of a row have used of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Tool calls that have started.
    pub tool_calls: u32,
    /// Tokens of all calls.
    pub tokens: u64,
    /// Tokens of the answers of the row's own model.
    pub output_tokens: u64,
    /// Bytes of the outputs of tools.
    pub tool_output_bytes: u64,
    /// How long the row's calls took. Calls that ran side by side count once.
    pub time: Duration,
}

impl Spent {
    /// Adds up the steps so far.
    #[must_use]
    pub fn of(steps: &[Step]) -> Self {
        let root = StepPath::root();
        let mut spent = Self { time: time_of(steps, &root), ..Self::default() };
        for step in steps {
            let is_own = step.path.parent().as_ref() == Some(&root);
            if let Some(usage) = step.turn().and_then(|turn| turn.usage) {
                spent.tokens = spent.tokens.saturating_add(usage.usage.total_tokens);
                spent.output_tokens += u64::from(is_own) * usage.usage.output_tokens;
            }
            spent.tool_calls += u32::from(!step.path.is_model_call());
            if let Some(output) = step.output() {
                spent.tool_output_bytes += output.output.len() as u64;
            }
        }
        spent
    }

    fn reached(&self, limits: &Limits) -> Option<Limit> {
        let tokens_left = limits.output_tokens.map(|most| most.saturating_sub(self.output_tokens));
        if tokens_left.is_some_and(|left| left < FEWEST_TOKENS) && self.output_tokens > 0 {
            Some(Limit::OutputTokens)
        } else if limits.tokens.is_some_and(|most| self.tokens >= most) {
            Some(Limit::Tokens)
        } else if self.tool_output_bytes > limits.tool_output_bytes {
            Some(Limit::ToolOutput)
        } else if self.time >= limits.time {
            Some(Limit::Time)
        } else {
            None
        }
    }
}

/// How long the calls of a scope took. Calls that ran side by side count once. An agent that has not ended took as long
/// as its own calls so far.
fn time_of(steps: &[Step], scope: &StepPath) -> Duration {
    let longest_tool = |model: &Step| {
        let tools = below(steps, &model.path);
        tools.map(|tool| took(tool).max(time_of(steps, &tool.path))).max().unwrap_or_default()
    };
    below(steps, scope).map(|model| took(model) + longest_tool(model)).sum()
}

fn below<'a>(steps: &'a [Step], path: &'a StepPath) -> impl Iterator<Item = &'a Step> {
    steps.iter().filter(move |step| step.path.parent().as_ref() == Some(path))
}

fn took(step: &Step) -> Duration {
    step.ended_at.map(|at| at.since(step.started_at)).unwrap_or_default()
}

/// The next step of a scope, decided from all steps of the row.
///
/// | the scope's last turn | what follows |
/// |---|---|
/// | none yet | the model is called |
/// | failed, or cut off | the end |
/// | calls no function, and has the required form | the end |
/// | calls no function, and does not have that form | the model is called again, at most `corrections` times |
/// | calls functions that are served here and have no output yet | these are called |
/// | calls functions that are not served here, or need approval | the end; these stay unanswered |
/// | calls functions that all have an output | the model is called |
///
/// Every limit is checked before the model or a tool is called.
#[must_use]
pub fn decide_next(steps: &[Step], scope: &StepPath, rules: &Rules<'_>) -> Next {
    let turns: Vec<(&Step, &Turn)> = turns_of(scope, steps).collect();
    let spent = Spent::of(steps);
    let call_model = || {
        let limits = rules.limits;
        let too_many = (turns.len() >= limits.iterations as usize).then_some(Limit::Iterations);
        match too_many.or_else(|| spent.reached(limits)) {
            Some(limit) => Next::End(ScopeEnd::Reached(limit)),
            None => Next::CallModel,
        }
    };
    let Some((step, turn)) = turns.last() else { return call_model() };
    let own_end = ScopeEnd::of(turn);
    if own_end != ScopeEnd::Completed {
        return Next::End(own_end);
    }
    let calls = turn.calls();
    if calls.is_empty() && turn.asks_client() {
        return Next::End(ScopeEnd::Completed);
    }
    if calls.is_empty() {
        let earlier = turns.iter().filter(|(_, turn)| turn.calls().is_empty()).count() - 1;
        return match (rules.check)(turn) {
            Ok(()) => Next::End(ScopeEnd::Completed),
            Err(_) if earlier < rules.corrections as usize => call_model(),
            Err(wrong) => Next::End(ScopeEnd::Invalid(wrong)),
        };
    }
    let is_answered = |no: u32| {
        let path = step.path.child(no);
        steps.iter().any(|step| step.path == path && step.output().is_some())
    };
    let served = |call: &ToolCall| (rules.served)(&call.name);
    // A call with an output was served here when it was made, even if the settings have changed since.
    let is_here = |(no, call): (u32, &ToolCall)| is_answered(no) || served(call) == Served::Here;
    let all_here = (0..).zip(&calls).all(is_here) && !turn.asks_client();
    let waiting: Vec<(u32, ToolCall)> =
        (0..).zip(calls).filter(|(no, call)| served(call) == Served::Here && !is_answered(*no)).collect();
    if waiting.is_empty() {
        return if all_here { call_model() } else { Next::End(ScopeEnd::Completed) };
    }
    let is_begun = |no: u32| steps.iter().any(|known| known.path == step.path.child(no));
    let new = waiting.iter().filter(|(no, _)| !is_begun(*no)).count();
    if new > 0 && spent.tool_calls as usize + new > rules.limits.tool_calls as usize {
        return Next::End(ScopeEnd::Reached(Limit::ToolCalls));
    }
    match spent.reached(rules.limits) {
        Some(limit) => Next::End(ScopeEnd::Reached(limit)),
        None => Next::CallTools(waiting),
    }
}

#[cfg(test)]
mod tests;

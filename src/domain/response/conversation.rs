//! The request for the next model call of a scope: the scope's first request, and the conversation since.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Fields, Limits, Spent, Step, StepPath, StepState, ToolCall, ToolOutput, Turn, raw};

/// A function call's output as an item of a conversation.
pub(super) fn call_output(call_id: &str, output: &str) -> Box<RawValue> {
    #[derive(Serialize)]
    struct CallOutput<'a> {
        r#type: &'static str,
        call_id: &'a str,
        output: &'a str,
    }
    raw(&CallOutput { r#type: "function_call_output", call_id, output })
}

#[derive(Serialize)]
struct UserMessage<'a> {
    role: &'static str,
    content: &'a str,
}

/// The items of an `input`: those of an array, or the one message that a string stands for.
///
/// # Errors
/// If it is neither.
pub fn input_items(input: Option<&RawValue>) -> Result<Vec<Box<RawValue>>, serde_json::Error> {
    let Some(input) = input else { return Ok(Vec::new()) };
    if input.get().starts_with('"') {
        let content: String = serde_json::from_str(input.get())?;
        return Ok(vec![raw(&UserMessage { role: "user", content: &content })]);
    }
    serde_json::from_str(input.get())
}

/// The start of a scope.
#[derive(Debug, Clone)]
pub struct ScopeStart {
    /// The request body, its tools resolved to functions. `input` is absent if the history is longer than the body's
    /// own input.
    pub request: Fields,
    /// The history that the scope began with, as items.
    pub input: Vec<Box<RawValue>>,
}

impl ScopeStart {
    /// The request for the next call of the scope's model. `check` returns the error of an answer that the model must
    /// correct.
    #[must_use]
    pub fn next_request(
        &self,
        scope: &StepPath,
        steps: &[Step],
        limits: &Limits,
        check: &dyn Fn(&Turn) -> Result<(), String>,
    ) -> Fields {
        let mut request = self.request.clone();
        let mut input = self.input.clone();
        let said = input.len();
        let mut has_called = false;
        for (step, turn) in turns_of(scope, steps) {
            input.extend(turn.items().map(|(item, call)| repeated(item, call.map(|(_, call)| call))));
            let calls = turn.calls();
            if calls.is_empty()
                && let Err(wrong) = check(turn)
            {
                input.push(raw(&UserMessage { role: "user", content: &correction(&wrong) }));
            }
            has_called |= !calls.is_empty();
            input.extend((0..).zip(&calls).filter_map(|(no, call)| {
                let answer = output_at(steps, &step.path.child(no))?;
                Some(call_output(&call.call_id, &answer.output))
            }));
        }
        if input.len() > said || (request.raw("input").is_none() && !input.is_empty()) {
            request.set("input", &input);
        }
        if has_called && let Some(choice) = request.raw("tool_choice").and_then(unforced) {
            request.set("tool_choice", &choice);
        }
        if input.len() > said
            && *scope == StepPath::root()
            && let Some(most) = limits.output_tokens
        {
            request.set("max_output_tokens", &most.saturating_sub(Spent::of(steps).output_tokens));
        }
        request
    }
}

/// An item of the model as it is repeated to the model. Arguments that are not a JSON object are wrapped in one: many
/// servers refuse a conversation with other arguments, so one mistake of the model would end it.
fn repeated(item: &RawValue, call: Option<ToolCall>) -> Box<RawValue> {
    let Some(call) = call else { return item.to_owned() };
    if Fields::read(call.arguments.as_bytes()).is_ok() {
        return item.to_owned();
    }
    let arguments = if call.arguments.trim().is_empty() {
        "{}".to_owned()
    } else {
        serde_json::json!({ "invalid_arguments": call.arguments }).to_string()
    };
    let mut fields = Fields::read(item.get().as_bytes()).expect("a call is an object");
    fields.set("arguments", &arguments);
    raw(&fields)
}

/// The completed turns of a scope, in order.
pub fn turns_of<'a>(scope: &'a StepPath, steps: &'a [Step]) -> impl Iterator<Item = (&'a Step, &'a Turn)> {
    let mut own: Vec<_> = steps
        .iter()
        .filter(|step| step.state == StepState::Completed && step.path.parent().as_ref() == Some(scope))
        .filter_map(|step| Some((step, step.turn()?)))
        .collect();
    own.sort_by_key(|(step, _)| step.path.no());
    own.into_iter()
}

/// The output of the tool call at a path, if it has one.
pub(super) fn output_at<'a>(steps: &'a [Step], path: &StepPath) -> Option<&'a ToolOutput> {
    steps.iter().find(|step| step.path == *path)?.output()
}

/// The message to a model whose answer does not match its schema.
#[must_use]
pub fn correction(wrong: &str) -> String {
    format!(
        "Your last answer does not match the JSON schema it must match: {wrong}. Answer again, with JSON that matches \
         the schema and nothing else."
    )
}

/// The same choice without a forced call, or `None` if the choice forces none. A call is forced only once: otherwise
/// the model could never answer.
fn unforced(choice: &RawValue) -> Option<Box<RawValue>> {
    let Ok(mut object) = Fields::read(choice.get().as_bytes()) else {
        return (choice.get() == "\"required\"").then(|| raw("auto"));
    };
    if object.get::<String>("type").ok().flatten().as_deref() != Some("allowed_tools") {
        return Some(raw("auto"));
    }
    object.set("mode", "auto");
    Some(raw(&object))
}

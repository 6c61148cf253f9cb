//! Functions and the choice among them: flat in the Responses API, nested in Chat Completions.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::node::{Node, is_string};
use crate::domain::response::{Fields, Unsupported, raw};
use crate::domain::row::shown;

/// Takes the tools out of a body.
pub(super) fn take(body: &mut Node) -> Result<Vec<Fields>, Unsupported> {
    body.take_nodes("tools")?.into_iter().map(nested).collect()
}

/// Takes the choice out of a body, and removes the tools that it does not allow from `tools`, which are nested already.
pub(super) fn take_choice(body: &mut Node, tools: &mut Vec<Fields>) -> Result<Option<Box<RawValue>>, Unsupported> {
    let Some(choice) = body.take("tool_choice") else { return Ok(None) };
    let choice = if is_string(&choice) {
        choice
    } else {
        let mut choice = Node::read("tool_choice".to_owned(), &choice)?;
        match choice.need_text("type")?.as_str() {
            "allowed_tools" => allow(choice, tools)?,
            kind => return Ok(Some(raw(&nested_of(kind, choice)?))),
        }
    };
    // Servers refuse a choice among no tools, even the one that both APIs make by default.
    let chooses = !tools.is_empty() || !matches!(choice.get(), r#""auto""# | r#""none""#);
    Ok(chooses.then_some(choice))
}

/// Removes the tools that a choice of type `allowed_tools` does not allow, and returns the choice among the others.
/// Only OpenAI's own server knows this type.
fn allow(mut choice: Node, tools: &mut Vec<Fields>) -> Result<Box<RawValue>, Unsupported> {
    let mode = choice.need_text("mode")?;
    if !matches!(mode.as_str(), "auto" | "required") {
        return Err(choice
            .refuse_member("mode", |at| format!("'{at}' is '{}'; it must be 'auto' or 'required'.", shown(&mode))));
    }
    let mut allowed = HashSet::new();
    for mut tool in choice.take_nodes("tools")? {
        let kind = tool.need_text("type")?;
        if kind != "function" {
            return Err(not_a_function(&kind, &tool));
        }
        let name = tool.need_text("name")?;
        if tools.iter().all(|known| name_of(known).as_ref() != Some(&name)) {
            return Err(tool.refuse(|at| format!("'{at}' allows '{}', which is not among 'tools'.", shown(&name))));
        }
        tool.nothing_left()?;
        allowed.insert(name);
    }
    choice.nothing_left()?;
    tools.retain(|tool| name_of(tool).is_some_and(|name| allowed.contains(&name)));
    Ok(raw(&mode))
}

/// The name of a nested function.
fn name_of(tool: &Fields) -> Option<String> {
    tool.get::<Fields>("function").ok()??.get("name").ok()?
}

/// A function, or the name of one, nested as Chat Completions has it.
fn nested(mut tool: Node) -> Result<Fields, Unsupported> {
    let kind = tool.need_text("type")?;
    nested_of(&kind, tool)
}

fn nested_of(kind: &str, tool: Node) -> Result<Fields, Unsupported> {
    match kind {
        "function" => Ok(of_type("function", &tool.rest())),
        other => Err(not_a_function(other, &tool)),
    }
}

fn not_a_function(kind: &str, tool: &Node) -> Unsupported {
    tool.refuse(|at| {
        format!("'{at}': the upstream cannot run '{}', it knows only functions; leave it out.", shown(kind))
    })
}

fn of_type(kind: &str, value: &Fields) -> Fields {
    let mut object = Fields::default();
    object.set("type", kind);
    object.set(kind, value);
    object
}

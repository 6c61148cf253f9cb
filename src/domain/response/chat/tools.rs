//! Functions and the choice among them: flat in the Responses API, nested in Chat Completions.

use serde_json::value::RawValue;

use super::node::{Node, is_string, raw};
use crate::domain::response::{Fields, Unsupported};
use crate::domain::row::shown;

/// Takes the tools out of a body.
pub(super) fn take(body: &mut Node) -> Result<Vec<Fields>, Unsupported> {
    body.take_nodes("tools")?.into_iter().map(nested).collect()
}

/// Takes the choice out of a body that has tools or has none.
pub(super) fn take_choice(body: &mut Node, has_tools: bool) -> Result<Option<Box<RawValue>>, Unsupported> {
    let Some(choice) = body.take("tool_choice") else { return Ok(None) };
    if is_string(&choice) {
        // Servers refuse a choice among no tools, even the one that both APIs make by default.
        let chooses = has_tools || !matches!(choice.get(), r#""auto""# | r#""none""#);
        return Ok(chooses.then_some(choice));
    }
    let mut choice = Node::read("tool_choice".to_owned(), &choice)?;
    let nested = match choice.need_text("type")?.as_str() {
        "allowed_tools" => allowed_tools(choice)?,
        kind => nested_of(kind, choice)?,
    };
    Ok(Some(raw(&nested)))
}

fn allowed_tools(mut choice: Node) -> Result<Fields, Unsupported> {
    let tools = choice.take_nodes("tools")?.into_iter().map(nested).collect::<Result<Vec<_>, _>>()?;
    let mut allowed = Fields::default();
    allowed.set("mode", &choice.need("mode")?);
    allowed.set("tools", &tools);
    choice.nothing_left()?;
    Ok(of_type("allowed_tools", &allowed))
}

/// A function, or the name of one, nested as Chat Completions has it.
fn nested(mut tool: Node) -> Result<Fields, Unsupported> {
    let kind = tool.need_text("type")?;
    nested_of(&kind, tool)
}

fn nested_of(kind: &str, tool: Node) -> Result<Fields, Unsupported> {
    match kind {
        "function" => Ok(of_type("function", &tool.rest())),
        other => Err(tool.refuse(|at| {
            format!("'{at}': the upstream cannot run '{}', it knows only functions; leave it out.", shown(other))
        })),
    }
}

fn of_type(kind: &str, value: &Fields) -> Fields {
    let mut object = Fields::default();
    object.set("type", kind);
    object.set(kind, value);
    object
}

//! The content of messages and of tool outputs: text, or parts of several kinds.

use serde::Serialize;
use serde_json::value::RawValue;

use super::node::{Node, is_string, nodes};
use crate::domain::response::{Fields, Unsupported, raw};
use crate::domain::row::shown;

/// The content of a chat message.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ChatContent {
    /// A string as it was written.
    Text(Box<RawValue>),
    /// The parts.
    Parts(Vec<Fields>),
}

impl ChatContent {
    /// The content that stands `at` a place of the body.
    pub(super) fn read(at: &str, json: Box<RawValue>) -> Result<Self, Unsupported> {
        if is_string(&json) {
            return Ok(Self::Text(json));
        }
        nodes(at, &json)?.into_iter().map(part).collect::<Result<_, _>>().map(Self::Parts)
    }

    /// The content as a string if it is one text: chat templates expect a string from every role but the user.
    pub(super) fn plain(self) -> Self {
        if let Self::Parts(parts) = &self
            && let [part] = parts.as_slice()
            && let Some(text) = text_of(part)
        {
            return Self::Text(text.to_owned());
        }
        self
    }

    /// The refusal, if the content has nothing else.
    pub(super) fn refusal(&self) -> Option<&RawValue> {
        match self {
            Self::Parts(parts) if parts.len() == 1 => parts[0].raw("refusal"),
            _ => None,
        }
    }
}

/// Joins the contents of chat messages: their texts with a blank line between them, or all parts if one is not a text.
pub(super) fn joined<'a>(contents: impl Iterator<Item = &'a RawValue>) -> ChatContent {
    let parts: Vec<Fields> = contents
        .flat_map(|content| {
            if is_string(content) {
                vec![text_part(content)]
            } else {
                serde_json::from_str(content.get()).expect("it is made of parts")
            }
        })
        .collect();
    let texts: Option<Vec<String>> = parts.iter().map(|part| serde_json::from_str(text_of(part)?.get()).ok()).collect();
    match texts {
        Some(mut texts) => {
            texts.retain(|text| !text.is_empty());
            ChatContent::Text(raw(&texts.join("\n\n")))
        }
        None => ChatContent::Parts(parts),
    }
}

fn text_part(text: &RawValue) -> Fields {
    let mut part = Fields::default();
    part.set("type", "text");
    part.set("text", text);
    part
}

/// The text of a part without other members.
fn text_of(part: &Fields) -> Option<&RawValue> {
    part.raw("text").filter(|_| part.iter().all(|(name, _)| name == "type" || name == "text"))
}

/// A part as Chat Completions has it. Members that both APIs know by the same name are kept.
fn part(mut part: Node) -> Result<Fields, Unsupported> {
    match part.need_text("type")?.as_str() {
        "input_text" => wrapped(part, "text", |part| part.need("text")),
        "output_text" => {
            // These members describe the text; the model does not need them.
            part.forget(&["annotations", "logprobs"]);
            wrapped(part, "text", |part| part.need("text"))
        }
        "refusal" => wrapped(part, "refusal", |part| part.need("refusal")),
        "input_audio" => wrapped(part, "input_audio", |part| part.need("input_audio")),
        "input_image" => wrapped(part, "image_url", image),
        "input_file" => wrapped(part, "file", file),
        other => Err(part.refuse(|at| {
            format!(
                "'{at}': parts of type '{}' cannot be sent to an upstream that has only /v1/chat/completions; leave it \
                 out.",
                shown(other)
            )
        })),
    }
}

/// A part of type `kind`, whose value is the member of that name.
fn wrapped<T: Serialize>(
    mut part: Node,
    kind: &str,
    value: impl FnOnce(&mut Node) -> Result<T, Unsupported>,
) -> Result<Fields, Unsupported> {
    let value = value(&mut part)?;
    let mut wrapped = Fields::default();
    wrapped.set("type", kind);
    wrapped.set(kind, &value);
    for (name, other) in part.rest().iter() {
        wrapped.set(name, other);
    }
    Ok(wrapped)
}

fn image(part: &mut Node) -> Result<Fields, Unsupported> {
    if part.take("file_id").is_some() {
        return Err(part.refuse_member("file_id", |at| {
            format!("'{at}': the upstream has no files; send the image as a data: URL in 'image_url'.")
        }));
    }
    let mut image = Fields::default();
    image.set("url", &part.need("image_url")?);
    if let Some(detail) = part.take("detail") {
        image.set("detail", &detail);
    }
    Ok(image)
}

fn file(part: &mut Node) -> Result<Fields, Unsupported> {
    if part.take("file_url").is_some() {
        return Err(part.refuse_member("file_url", |at| {
            format!(
                "'{at}' cannot be sent to an upstream that has only /v1/chat/completions; send 'file_data' instead."
            )
        }));
    }
    let mut file = Fields::default();
    for name in ["filename", "file_data", "file_id"] {
        if let Some(value) = part.take(name) {
            file.set(name, &value);
        }
    }
    Ok(file)
}

//! Calls with a file: the members of the body are the fields of a form.

use reqwest::multipart::{Form, Part};
use serde_json::Value;

use super::CallFile;

/// The form of a call with this body, which is an object. As in OpenAI's SDKs, a list is several fields.
pub(super) fn form(body: &[u8], file: &CallFile) -> Form {
    let members = serde_json::from_slice::<serde_json::Map<String, Value>>(body).unwrap_or_default();
    let mut form = Form::new();
    for (name, value) in members {
        form = match value {
            Value::Null => form,
            Value::Array(values) => {
                let name = format!("{name}[]");
                values.into_iter().fold(form, |form, value| form.text(name.clone(), text(value)))
            }
            value => form.text(name, text(value)),
        };
    }
    let part = || Part::stream(file.bytes.clone()).file_name(file.name.clone());
    // A media type that is none is left out.
    let typed = part().mime_str(&file.media_type).unwrap_or_else(|_| part());
    form.part("file", typed)
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

//! Reads the messages of a chat completion whose text is to be checked. Each stays as it came, to be sent again.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// The message of every choice.
///
/// # Errors
/// Why there are none.
pub fn messages(completion: &[u8]) -> serde_json::Result<Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Completion {
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        message: Box<RawValue>,
    }
    let completion: Completion = serde_json::from_slice(completion)?;
    Ok(completion.choices.into_iter().map(|choice| choice.message).collect())
}

/// The text of a message; `None` if the message calls tools.
///
/// # Errors
/// Why it cannot be read.
pub fn text(message: &RawValue) -> serde_json::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Message {
        content: Option<Content>,
        #[serde(default)]
        tool_calls: Option<Vec<IgnoredAny>>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Text(String),
        Parts(Vec<TextPart>),
    }
    #[derive(Deserialize)]
    struct TextPart {
        #[serde(default)]
        text: String,
    }
    let message: Message = serde_json::from_str(message.get())?;
    if message.tool_calls.is_some_and(|calls| !calls.is_empty()) {
        return Ok(None);
    }
    Ok(Some(match message.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => parts.into_iter().map(|part| part.text).collect(),
        None => String::new(),
    }))
}

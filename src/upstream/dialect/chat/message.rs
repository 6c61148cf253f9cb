//! Reads the messages of a chat completion whose text is to be checked. Each stays as it came, to be sent again.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::domain::answer::without_lone_surrogates;

/// A message of a model, and its text.
#[derive(Debug)]
pub struct ChatAnswer {
    /// The message.
    pub message: Box<RawValue>,
    /// What it says.
    pub text: String,
}

#[derive(Deserialize)]
struct Choice {
    message: Box<RawValue>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
    #[serde(default)]
    tool_calls: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    refusal: Option<String>,
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
    #[serde(default)]
    refusal: Option<String>,
}

/// The message of every choice that answers what was asked. A choice that was cut off, that refuses or that calls tools
/// does not.
///
/// # Errors
/// Why the completion cannot be read.
pub fn answers(completion: &[u8]) -> serde_json::Result<Vec<ChatAnswer>> {
    #[derive(Deserialize)]
    struct Completion {
        choices: Vec<Choice>,
    }
    let completion: Completion = serde_json::from_slice(&without_lone_surrogates(completion))?;
    let read = completion.choices.into_iter().map(|Choice { message, finish_reason }| {
        let is_cut_off = finish_reason.is_some_and(|reason| matches!(reason.as_str(), "length" | "content_filter"));
        let text = if is_cut_off { None } else { serde_json::from_str::<Message>(message.get())?.into_text() };
        Ok(text.map(|text| ChatAnswer { message, text }))
    });
    read.filter_map(Result::transpose).collect()
}

impl Message {
    fn into_text(self) -> Option<String> {
        let is_refusal = |refusal: &Option<String>| refusal.as_ref().is_some_and(|text| !text.is_empty());
        if is_refusal(&self.refusal) || self.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            return None;
        }
        match self.content {
            Some(Content::Text(text)) => Some(text),
            Some(Content::Parts(parts)) if parts.iter().any(|part| is_refusal(&part.refusal)) => None,
            Some(Content::Parts(parts)) => Some(parts.into_iter().map(|part| part.text).collect()),
            None => Some(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_answers_are_to_be_checked() {
        let cases: [(&str, &[&str]); 9] = [
            (r#"{"message":{"content":"a"},"finish_reason":"stop"},{"message":{"content":"b"}}"#, &["a", "b"]),
            (r#"{"message":{"content":[{"type":"text","text":"a"},{"text":"b"}]}}"#, &["ab"]),
            (r#"{"message":{"content":null}}"#, &[""]),
            (r#"{"message":{"content":"a \ud83d"}}"#, &["a \u{fffd}"]),
            (r#"{"message":{"content":"a"},"finish_reason":"length"}"#, &[]),
            (r#"{"message":{"content":"a"},"finish_reason":"content_filter"}"#, &[]),
            (r#"{"message":{"content":null,"refusal":"No."}}"#, &[]),
            (r#"{"message":{"content":[{"type":"refusal","refusal":"No."}]}}"#, &[]),
            (r#"{"message":{"content":null,"tool_calls":[{}]}}"#, &[]),
        ];
        for (choices, expected) in cases {
            let read = answers(format!(r#"{{"choices":[{choices}]}}"#).as_bytes()).expect("a completion");
            assert_eq!(read.iter().map(|answer| &answer.text).collect::<Vec<_>>(), expected, "{choices}");
        }
        assert!(answers(br#"{"choices":[{}]}"#).is_err());
    }
}

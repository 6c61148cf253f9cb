//! The checks of a chat request's messages that servers make before a model sees them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::failure::SimulatedFailure;

const ROLES: [&str; 6] = ["developer", "system", "user", "assistant", "tool", "function"];

#[derive(Deserialize)]
struct CheckedMessage<'a> {
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// Checks the messages of a request.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn check(messages: Option<&RawValue>) -> Result<(), SimulatedFailure> {
    let wrong = |param: String, code, why: &str| {
        let message = format!("Invalid '{param}': {why}.");
        Err(SimulatedFailure::InvalidMember { param, code, message })
    };
    let Some(messages) = messages else {
        return wrong("messages".to_owned(), "missing_required_parameter", "it is required");
    };
    let Ok(messages) = serde_json::from_str::<Vec<CheckedMessage<'_>>>(messages.get()) else {
        return wrong("messages".to_owned(), "invalid_type", "expected an array of objects");
    };
    if messages.is_empty() {
        return wrong("messages".to_owned(), "empty_array", "expected at least one message");
    }
    for (position, CheckedMessage { role, content }) in messages.iter().enumerate() {
        let param = |member: &str| format!("messages[{position}].{member}");
        let Some(role) = role else { return wrong(param("role"), "missing_required_parameter", "it is required") };
        let Some(role) = ROLES.iter().find(|known| role.get().trim_matches('"') == **known) else {
            return wrong(param("role"), "invalid_value", &format!("expected one of {}", ROLES.join(", ")));
        };
        match content.map(|content| content.get().as_bytes()[0]) {
            Some(b'"' | b'[') => {}
            // Its tool calls may be all that it says.
            None if matches!(*role, "assistant" | "function") => {}
            _ => return wrong(param("content"), "invalid_type", "expected a string or an array of parts"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (r#"[{"role":"user","content":"hi"},{"role":"assistant","tool_calls":[]}]"#, None),
            (r#"[{"role":"user","content":[]},{"role":"assistant","content":null}]"#, None),
            ("[]", Some("messages")),
            (r#""hi""#, Some("messages")),
            (r#"["hi"]"#, Some("messages")),
            (r#"[{"content":"hi"}]"#, Some("messages[0].role")),
            (r#"[{"role":"user","content":"hi"},{"role":"robot","content":"hi"}]"#, Some("messages[1].role")),
            (r#"[{"role":1,"content":"hi"}]"#, Some("messages[0].role")),
            (r#"[{"role":"user","content":7}]"#, Some("messages[0].content")),
            (r#"[{"role":"user"}]"#, Some("messages[0].content")),
        ];
        for (messages, expected) in cases {
            let raw = RawValue::from_string(messages.to_owned()).expect("it is JSON");
            let named = check(Some(&raw)).err().map(|failure| match failure {
                SimulatedFailure::InvalidMember { param, .. } => param,
                other => panic!("{other:?}"),
            });
            assert_eq!(named.as_deref(), expected, "{messages}");
        }
        assert!(check(None).is_err());
    }
}

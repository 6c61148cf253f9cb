//! Writing another model's name into a body, for a server that knows a model by another name than rows do.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The body with the server's name for its model. All bytes but those of the name are as they were. A body that names
/// no model is left alone.
pub(super) fn with_model(body: &Bytes, name: &str) -> Bytes {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        model: &'a RawValue,
    }
    // A list could be read as the members in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return body.clone();
    }
    let Ok(Members { model }) = serde_json::from_slice(body) else { return body.clone() };
    let start = model.get().as_ptr() as usize - body.as_ptr() as usize;
    let name = serde_json::to_string(name).expect("a text is JSON");
    [&body[..start], name.as_bytes(), &body[start + model.get().len()..]].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_is_another() {
        let cases = [
            (r#"{"model":"a","n":1.10}"#, r#"{"model":"x/\"y\"","n":1.10}"#),
            (
                r#" { "n" : 1e2, "mod\u0065l" : "\u0061" , "input":{"model":"a"}} "#,
                r#" { "n" : 1e2, "mod\u0065l" : "x/\"y\"" , "input":{"model":"a"}} "#,
            ),
            (
                r#"{"messages":[{"content":"\"model\":\"a\""}],"model":"a"}"#,
                r#"{"messages":[{"content":"\"model\":\"a\""}],"model":"x/\"y\""}"#,
            ),
            (r#"{"input":"Hi"}"#, r#"{"input":"Hi"}"#),
            (r#"["a"]"#, r#"["a"]"#),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(with_model(&Bytes::from_static(body.as_bytes()), r#"x/"y""#), expected, "{body}");
        }
    }
}

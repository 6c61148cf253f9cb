//! Writing a priority into a body, for a server that orders its requests by it.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::domain::endpoint::Endpoint;

/// Whether bodies for an endpoint can have a priority.
pub(super) fn has_priorities(endpoint: Endpoint) -> bool {
    matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Responses)
}

/// The body with a priority as its first member. All other bytes are as they were. A body that has a priority of its
/// own, or is no object, is left alone.
pub(super) fn with_priority(body: &Bytes, priority: i64) -> Bytes {
    #[derive(Deserialize)]
    struct Members {
        #[serde(default, deserialize_with = "is_there")]
        priority: bool,
    }
    let Some(inside) = body.trim_ascii_start().strip_prefix(b"{") else { return body.clone() };
    let Ok(Members { priority: false }) = serde_json::from_slice(body) else { return body.clone() };
    let is_empty = inside.trim_ascii_start().starts_with(b"}");
    let member = format!(r#""priority":{priority}{}"#, if is_empty { "" } else { "," });
    let start = body.len() - inside.len();
    [&body[..start], member.as_bytes(), inside].concat().into()
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_priority_is_new() {
        let cases = [
            (r#"{"model":"a","n":1.10}"#, r#"{"priority":-7,"model":"a","n":1.10}"#),
            (r#" { "n" : 1e2,"n":2 } "#, r#" {"priority":-7, "n" : 1e2,"n":2 } "#),
            (r#"{"metadata":{"priority":"high"}}"#, r#"{"priority":-7,"metadata":{"priority":"high"}}"#),
            ("{ }", r#"{"priority":-7 }"#),
            (r#"{"priority":3,"model":"a"}"#, r#"{"priority":3,"model":"a"}"#),
            (r#"{"model":"a","prior\u0069ty":null}"#, r#"{"model":"a","prior\u0069ty":null}"#),
            (r#"{"priority":1,"priority":2}"#, r#"{"priority":1,"priority":2}"#),
            (r#"["a"]"#, r#"["a"]"#),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(with_priority(&Bytes::from_static(body.as_bytes()), -7), expected, "{body}");
        }
    }
}

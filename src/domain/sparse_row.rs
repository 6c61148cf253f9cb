//! Rows that leave out members which their batch gives.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::{RawValue, to_raw_value};

use super::batch_endpoint::BatchEndpoint;

/// The members that a batch gives to its rows.
#[derive(Debug, Clone)]
pub struct RowDefaults {
    /// The url, if all rows have the same.
    pub endpoint: BatchEndpoint,
    /// The model of bodies that name none.
    pub model: Option<String>,
}

#[derive(Deserialize)]
struct SparseRow<'a> {
    custom_id: Option<IgnoredAny>,
    method: Option<IgnoredAny>,
    url: Option<IgnoredAny>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SparseBody {
    model: Option<IgnoredAny>,
}

impl RowDefaults {
    /// The row with the members that it leaves out. Row `number`, counted from 1, is `request-<number>` unless it has a
    /// name. All bytes that are there stay; what is no row stays as it is, so that intake names its error.
    #[must_use]
    pub fn complete(&self, row: &[u8], number: u64) -> Vec<u8> {
        let text = str::from_utf8(row).unwrap_or_default();
        let Ok(sparse) = serde_json::from_str::<SparseRow<'_>>(text) else { return row.to_vec() };
        let mut members = Vec::new();
        if sparse.custom_id.is_none() {
            members.push(member("custom_id", &format!("request-{number}")));
        }
        if sparse.method.is_none() {
            members.push(member("method", "POST"));
        }
        if sparse.url.is_none()
            && let BatchEndpoint::One(endpoint) = self.endpoint
        {
            members.push(member("url", endpoint.as_str()));
        }
        let Some((body, model)) = sparse.body.and_then(|body| Some((body, self.model_for(body)?))) else {
            return with_first(text, &members).into_bytes();
        };
        // The body is a part of the text.
        let start = body.get().as_ptr() as usize - text.as_ptr() as usize;
        let (head, tail) = (&text[..start], &text[start + body.get().len()..]);
        with_first(&[head, &with_first(body.get(), &[member("model", model)]), tail].concat(), &members).into_bytes()
    }

    /// The model that a body is to get.
    fn model_for(&self, body: &RawValue) -> Option<&str> {
        let names_none = serde_json::from_str::<SparseBody>(body.get()).is_ok_and(|body| body.model.is_none());
        self.model.as_deref().filter(|_| names_none)
    }
}

fn member(name: &str, value: &str) -> String {
    format!("\"{name}\":{}", to_raw_value(value).expect("a text is JSON"))
}

/// An object with more members at its beginning.
fn with_first(object: &str, members: &[String]) -> String {
    let Some(rest) = object.trim_ascii_start().strip_prefix('{').filter(|_| !members.is_empty()) else {
        return object.to_owned();
    };
    let comma = if rest.trim_ascii_start().starts_with('}') { "" } else { "," };
    format!("{{{}{comma}{rest}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::endpoint::Endpoint;

    #[test]
    fn members_that_are_left_out_are_added_and_all_else_stays() {
        type Case = (&'static str, Option<&'static str>, &'static str);
        let with = |model: Option<&str>| RowDefaults {
            endpoint: BatchEndpoint::One(Endpoint::Embeddings),
            model: model.map(str::to_owned),
        };
        let cases: [Case; 8] = [
            (
                r#"{"body":{"model":"m","n":1.10,"a":12345678901234567890}}"#,
                Some("other"),
                r#"{"custom_id":"request-7","method":"POST","url":"/v1/embeddings","body":{"model":"m","n":1.10,"a":12345678901234567890}}"#,
            ),
            (
                r#"{"url":"/x", "custom_id" : "a", "body": { "input":"x" } , "method":"POST"}"#,
                Some("m\""),
                r#"{"url":"/x", "custom_id" : "a", "body": {"model":"m\"", "input":"x" } , "method":"POST"}"#,
            ),
            (
                r#"{"method":"POST","url":"/x","custom_id":"a","body":{}}"#,
                Some("m"),
                r#"{"method":"POST","url":"/x","custom_id":"a","body":{"model":"m"}}"#,
            ),
            (
                r#"{"method":"POST","url":"/x","custom_id":"a","body":{"input":"x"}}"#,
                None,
                r#"{"method":"POST","url":"/x","custom_id":"a","body":{"input":"x"}}"#,
            ),
            ("{}", None, r#"{"custom_id":"request-7","method":"POST","url":"/v1/embeddings"}"#),
            ("[1]", Some("m"), "[1]"),
            ("{\"body\":", Some("m"), "{\"body\":"),
            (r#"{"body":{},"body":{}}"#, Some("m"), r#"{"body":{},"body":{}}"#),
        ];
        for (row, model, expected) in cases {
            let complete = with(model).complete(row.as_bytes(), 7);
            assert_eq!(String::from_utf8(complete).expect("it was UTF-8"), expected, "{row}");
        }
        assert_eq!(with(None).complete(b"\xff", 1), b"\xff");
    }
}

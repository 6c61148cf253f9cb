//! The metadata of a new batch (contract §8.1), which is kept in the order in which it was sent.

use serde_json::{Map, Value};

use crate::api::ApiError;
use crate::api::json_body::object;
use crate::domain::canary::Canary;
use crate::domain::response::Fields;
use crate::domain::row::{shown, type_name};

const MAX_PAIRS: usize = 16;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 512;

/// Checks the metadata of a body, and returns it as the text of a JSON object. `text` is what the body was parsed from.
pub(super) fn metadata(body: &Map<String, Value>, text: &[u8]) -> Result<Option<String>, ApiError> {
    let Some(pairs) = object(body, "metadata")? else { return Ok(None) };
    if pairs.len() > MAX_PAIRS {
        let message = format!(
            "Invalid 'metadata': too many properties. Expected an object with at most {MAX_PAIRS} properties, \
             but got an object with {} properties instead.",
            pairs.len()
        );
        return Err(ApiError::invalid(message).at("metadata").code("object_above_max_properties"));
    }
    for (key, value) in pairs {
        let path = format!("metadata.{}", shown(key));
        let too_long = |what: &str, max: usize, length: usize| {
            let message = format!(
                "Invalid '{path}': {what} too long. Expected a string with maximum length {max}, \
                 but got a string with length {length} instead."
            );
            ApiError::invalid(message).at(&path).code("string_above_max_length")
        };
        let Value::String(value) = value else {
            return Err(ApiError::wrong_type(&path, "a string", type_name(value)));
        };
        let (key_length, value_length) = (key.chars().count(), value.chars().count());
        if key_length > MAX_KEY {
            return Err(too_long("key", MAX_KEY, key_length));
        }
        if value_length > MAX_VALUE {
            return Err(too_long("string", MAX_VALUE, value_length));
        }
    }
    Ok(Some(in_order(text).expect("an object with an object of texts, as it was checked")))
}

/// The rows that run first, as the metadata of a body asks for them, which was checked before.
pub(super) fn canary(body: &Map<String, Value>) -> Result<Option<Canary>, ApiError> {
    let Some(asked) = object(body, "metadata")?.and_then(|pairs| pairs.get(Canary::KEY)) else { return Ok(None) };
    let asked = asked.as_str().unwrap_or_default();
    Canary::parse(asked).map(Some).ok_or_else(|| {
        let asked = shown(asked);
        let message = format!(
            "Invalid 'metadata.canary': '{asked}'. Expected the number of rows that run first, such as '100', or \
             '100:auto' to go on by itself if fewer than half of them fail. Use another key for anything else."
        );
        ApiError::invalid(message).at("metadata.canary").code("invalid_value")
    })
}

/// The metadata of a body, with its pairs in their order, which a parsed object does not have.
fn in_order(body: &[u8]) -> serde_json::Result<String> {
    let given: Fields = Fields::read(body)?.get("metadata")?.unwrap_or_default();
    let mut pairs = Fields::default();
    for (key, value) in given.iter() {
        pairs.set(key, &serde_json::from_str::<String>(value.get())?);
    }
    serde_json::to_string(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_keeps_its_order_and_of_a_key_twice_the_last_value_counts() {
        let cases = [
            ("{}", None),
            (r#"{"metadata":null}"#, None),
            (r#"{"metadata":{}}"#, Some("{}")),
            (r#"{"metadata":{"b" : "1", "a":"\u00e9"}}"#, Some(r#"{"b":"1","a":"é"}"#)),
            (r#"{"metadata":{"b":"1","a":"2","\u0062":"3"}}"#, Some(r#"{"b":"3","a":"2"}"#)),
            (r#"{"metadata":{"b":1,"a":"2","b":"3"}}"#, Some(r#"{"b":"3","a":"2"}"#)),
            (r#"{"metadata":{"b":"1"},"x":[1],"metadata":{"z":"1","a":"2"}}"#, Some(r#"{"z":"1","a":"2"}"#)),
        ];
        for (body, expected) in cases {
            let Ok(Value::Object(parsed)) = serde_json::from_str(body) else { panic!("{body}") };
            let metadata = metadata(&parsed, body.as_bytes()).expect("it is in order");

            assert_eq!(metadata.as_deref(), expected, "{body}");
        }
    }
}

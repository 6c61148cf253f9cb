//! The metadata of a new batch (contract §8.1), which is kept in the order in which it was sent.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::create::object;
use crate::api::ApiError;
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
    let pairs = in_order(text).expect("an object with an object of texts, as it was checked");
    Ok(Some(serde_json::to_string(&pairs).expect("an object of texts serialises")))
}

/// The pairs of the metadata in their order, which a parsed object does not have.
fn in_order(body: &[u8]) -> serde_json::Result<OrderedPairs> {
    let members: HashMap<String, &RawValue> = serde_json::from_slice(body)?;
    serde_json::from_str(members.get("metadata").map_or("{}", |metadata| metadata.get()))
}

/// The members of an object of texts. Of a key that is there twice, the last value counts, as in any parsed object.
struct OrderedPairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for OrderedPairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = OrderedPairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<OrderedPairs, A::Error> {
        let mut pairs: Vec<(String, Value)> = Vec::new();
        while let Some((key, value)) = members.next_entry::<String, Value>()? {
            match pairs.iter_mut().find(|(earlier, _)| *earlier == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
        }
        Ok(OrderedPairs(pairs))
    }
}

impl Serialize for OrderedPairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
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

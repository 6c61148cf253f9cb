//! Members of JSON bodies, which are read by hand for OpenAI's messages (contract §1.7).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{ApiError, expires_after, integer};
use crate::domain::row::type_name;

/// The object that a body is.
pub(super) fn parse(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let parsed: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("We could not parse the JSON body of your request. {error}.")))?;
    let Value::Object(parsed) = parsed else {
        return Err(ApiError::invalid(format!(
            "We could not parse the JSON body of your request. Expected an object, but got {} instead.",
            type_name(&parsed)
        )));
    };
    Ok(parsed)
}

/// The members that are not null as text, which is the same for each order of the members and each spacing.
pub(super) fn canonical(body: &Map<String, Value>) -> String {
    let members: BTreeMap<_, _> = body.iter().filter(|(_, value)| !value.is_null()).collect();
    serde_json::to_string(&members).expect("JSON serialises")
}

/// A member that must be there. Null counts as absent (contract §1.4).
pub(super) fn required<'a>(object: &'a Map<String, Value>, name: &str, path: &str) -> Result<&'a Value, ApiError> {
    object.get(name).filter(|value| !value.is_null()).ok_or_else(|| ApiError::missing(path))
}

/// A text member, whose path is `path`.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str, path: &str) -> Result<&'a str, ApiError> {
    let value = required(object, name, path)?;
    value.as_str().ok_or_else(|| ApiError::wrong_type(path, "a string", type_name(value)))
}

/// An object member, if it is there.
pub(super) fn object<'a>(body: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Map<String, Value>>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(ApiError::wrong_type(name, "an object", type_name(other))),
    }
}

/// A member that says how long a file is kept, if it is there.
pub(super) fn kept_for(body: &Map<String, Value>, name: &str) -> Result<Option<Duration>, ApiError> {
    let Some(given) = object(body, name)? else { return Ok(None) };
    let anchor = text(given, "anchor", &format!("{name}.anchor"))?;
    let seconds = |path: &str| integer::in_json(path, required(given, "seconds", path)?, expires_after::SECONDS);
    expires_after::read(name, anchor, seconds).map(Some)
}

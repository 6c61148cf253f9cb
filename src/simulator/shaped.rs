//! Texts in the shape of a JSON schema, for requests that ask for one.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answers::{Kind, word};
use super::draws::Draws;

/// Below this depth, an instance has what its schema requires and no more.
const DEEP: usize = 4;
/// No schema is followed deeper: it may contain itself.
const DEEPEST: usize = 32;

/// The schema that a request asks for: by `response_format` in chat requests, by `text` in those of responses.
pub fn schema(kind: Kind, response_format: Option<&RawValue>, text: Option<&RawValue>) -> Option<Value> {
    let read = |raw: Option<&RawValue>| serde_json::from_str::<Value>(raw?.get()).ok();
    let format = match kind {
        Kind::Chat => read(response_format)?,
        Kind::Response => read(text)?.get("format")?.clone(),
        _ => return None,
    };
    match format.get("type")?.as_str()? {
        "json_schema" => format.get("json_schema").unwrap_or(&format).get("schema").cloned(),
        "json_object" => Some(json!({ "type": "object", "properties": { "answer": { "type": "string" } } })),
        _ => None,
    }
}

/// A value that matches a schema, as far as types, bounds, branches and references go: no pattern is looked at.
pub fn instance(schema: &Value, draws: &mut Draws) -> Value {
    Generator { root: schema, draws }.instance(schema, 0)
}

struct Generator<'a> {
    /// What references begin at.
    root: &'a Value,
    draws: &'a mut Draws,
}

impl<'a> Generator<'a> {
    fn instance(&mut self, schema: &'a Value, depth: usize) -> Value {
        if depth > DEEPEST {
            return Value::Null;
        }
        let referred = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'));
        if let Some(target) = referred.and_then(|pointer| self.root.pointer(pointer)) {
            return self.instance(target, depth + 1);
        }
        if let Some(only) = schema.get("const") {
            return only.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()) {
            return values[self.draws.below(count(values.len())) as usize].clone();
        }
        let branches = ["anyOf", "oneOf", "allOf"].iter().find_map(|keyword| schema.get(*keyword)?.as_array());
        if let Some(branches) = branches.filter(|branches| !branches.is_empty()) {
            let ends = branches.iter().find(|branch| depth > DEEP && branch["type"] == "null");
            return self.instance(ends.unwrap_or(&branches[0]), depth + 1);
        }
        match kind_of(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" => self.integer(schema).into(),
            "number" => self.number(schema),
            "boolean" => Value::Bool(self.draws.below(2) == 0),
            "null" => Value::Null,
            _ => self.text(schema).into(),
        }
    }

    fn object(&mut self, schema: &'a Value, depth: usize) -> Value {
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let mut object = Map::new();
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if depth <= DEEP || required.contains(&name.as_str()) {
                object.insert(name.clone(), self.instance(property, depth + 1));
            }
        }
        for name in required {
            object.entry(name).or_insert_with(|| word(self.draws).into());
        }
        object.into()
    }

    fn array(&mut self, schema: &'a Value, depth: usize) -> Value {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_u64).and_then(|items| usize::try_from(items).ok());
        let wished = usize::from(depth <= DEEP).min(bound("maxItems").unwrap_or(1));
        // A request may ask for any number.
        let items = bound("minItems").unwrap_or(0).max(wished).min(1000);
        let of = schema.get("items").unwrap_or(&Value::Null);
        (0..items).map(|_| self.instance(of, depth + 1)).collect()
    }

    fn number(&mut self, schema: &Value) -> Value {
        let bound = |keywords: [&str; 2]| keywords.iter().find_map(|keyword| schema.get(*keyword)?.as_f64());
        match (bound(["minimum", "exclusiveMinimum"]), bound(["maximum", "exclusiveMaximum"])) {
            (Some(least), Some(most)) => f64::midpoint(least, most).into(),
            // Whole numbers are numbers too.
            _ => self.integer(schema).into(),
        }
    }

    fn integer(&mut self, schema: &Value) -> i64 {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
        let least = bound("minimum").map(f64::ceil).or(bound("exclusiveMinimum").map(|bound| bound.floor() + 1.0));
        let most = bound("maximum").map(f64::floor).or(bound("exclusiveMaximum").map(|bound| bound.ceil() - 1.0));
        let least = whole(least.unwrap_or_else(|| most.unwrap_or(0.0).min(0.0)));
        let most = most.map_or(i64::MAX, whole).min(least.saturating_add(99));
        let choices = u32::try_from(most.saturating_sub(least)).unwrap_or(0) + 1;
        least.saturating_add(self.draws.below(choices).into())
    }

    fn text(&mut self, schema: &Value) -> String {
        let known = match schema.get("format").and_then(Value::as_str) {
            Some("date-time") => Some("2026-01-01T00:00:00Z"),
            Some("date") => Some("2026-01-01"),
            Some("time") => Some("00:00:00Z"),
            Some("email") => Some("a@example.com"),
            Some("uri") => Some("https://example.com/"),
            Some("uuid") => Some("00000000-0000-4000-8000-000000000000"),
            _ => None,
        };
        if let Some(known) = known {
            return known.to_owned();
        }
        let bound = |keyword| schema.get(keyword).and_then(Value::as_u64).and_then(|chars| usize::try_from(chars).ok());
        let mut text = word(self.draws).to_owned();
        while text.len() < bound("minLength").unwrap_or(0).min(10_000) {
            text = format!("{text} {}", word(self.draws));
        }
        text.truncate(bound("maxLength").unwrap_or(usize::MAX));
        text
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "a bound beyond all integers is the last of them")]
fn whole(number: f64) -> i64 {
    number as i64
}

/// The type of an instance: the first that is not null, or the one that other keywords are about.
fn kind_of(schema: &Value) -> &str {
    let given = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        Some(kind) => kind.as_str(),
        None => None,
    };
    given.unwrap_or_else(|| match () {
        () if schema.get("properties").is_some() || schema.get("required").is_some() => "object",
        () if schema.get("items").is_some() => "array",
        () => "string",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_matches_its_schema() {
        let schemas = [
            json!({ "type": "object", "properties": { "name": { "type": "string", "minLength": 20 },
                "age": { "type": "integer", "minimum": 18, "maximum": 20 }, "tag": { "enum": ["a", "b"] } },
                "required": ["name", "age", "tag"], "additionalProperties": false }),
            json!({ "type": "array", "items": { "type": ["null", "boolean"] }, "minItems": 3 }),
            json!({ "$ref": "#/$defs/node", "$defs": { "node": { "type": "object", "properties": {
                "next": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] },
                "children": { "type": "array", "items": { "$ref": "#/$defs/node" } } },
                "required": ["next", "children"] } } }),
            json!({ "anyOf": [{ "const": 7 }, { "type": "string" }] }),
            json!({ "type": "number", "exclusiveMinimum": 0.5, "maximum": 1 }),
            json!({ "type": "integer", "exclusiveMaximum": -3 }),
            json!({ "type": "string", "maxLength": 1 }),
            json!({ "required": ["x"] }),
            json!({ "type": "object", "properties": { "at": { "type": "string", "format": "date-time" } } }),
        ];
        for schema in schemas {
            for seed in 0..20 {
                let value = instance(&schema, &mut Draws::new(seed, 0, b"", b""));
                assert!(jsonschema::is_valid(&schema, &value), "{schema}: {value}");
            }
        }
    }
}

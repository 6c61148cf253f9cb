//! JSON schemas that answers and arguments must match.

use std::collections::HashMap;
use std::fmt;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// As much as is said of what is wrong: enough to mend it, and no essay for the model to read.
const ERRORS_NAMED: usize = 3;
const LONGEST_ERROR: usize = 400;

/// Bytes of a schema.
const MOST_BYTES: usize = 256 << 10;
/// Subschemas, those behind references counted as often as they are referred to: what checking may cost.
const MOST_SUBSCHEMAS: u64 = 100_000;

/// A JSON schema, compiled. References are JSON pointers into itself.
pub struct Schema(Validator);

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(schema: &str) -> Result<Self, String> {
        if schema.len() > MOST_BYTES {
            return Err(format!("it is larger than {MOST_BYTES} bytes"));
        }
        let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
        if Size::of(&schema)? > MOST_SUBSCHEMAS {
            return Err("it refers to itself too often".to_owned());
        }
        // Patterns that come with rows are run in linear time.
        let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
        options.build(&schema).map(Self).map_err(|error| shortened(&error.to_string()))
    }

    /// Checks a text, which must be JSON that matches.
    ///
    /// # Errors
    /// What is wrong with it, for a model or a person to mend.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let value = serde_json::from_str(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
        // Before errors are gathered, which is dear.
        if self.0.is_valid(&value) {
            return Ok(());
        }
        let errors: Vec<_> = self
            .0
            .iter_errors(&value)
            .take(ERRORS_NAMED)
            .map(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "the whole".to_owned() } else { place };
                format!("at {place}: {}", shortened(&error.to_string()))
            })
            .collect();
        Err(errors.join("; "))
    }
}

/// How many subschemas checking may lead through.
struct Size<'a> {
    root: &'a Value,
    /// Of what references lead to; `None` while it is counted.
    known: HashMap<&'a str, Option<u64>>,
}

impl<'a> Size<'a> {
    fn of(root: &'a Value) -> Result<u64, String> {
        Size { root, known: HashMap::new() }.count(root)
    }

    fn count(&mut self, schema: &'a Value) -> Result<u64, String> {
        let mut sum: u64 = 1;
        match schema {
            Value::Array(elements) => sum = sum.saturating_add(self.count_all(elements.iter())?),
            Value::Object(members) => {
                for (name, member) in members {
                    let size = match (name.as_str(), member) {
                        ("properties" | "patternProperties" | "dependentSchemas", Value::Object(schemas)) => {
                            self.count_all(schemas.values())?
                        }
                        // No schemas, or counted where they are referred to.
                        ("const" | "default" | "enum" | "examples" | "$defs" | "definitions", _) => 0,
                        ("$id", _) if std::ptr::eq(schema, self.root) => 0,
                        ("$ref", Value::String(reference)) => self.behind(reference)?,
                        ("$dynamicRef" | "$recursiveRef" | "$id", Value::String(_)) => {
                            return Err(format!("it has `{name}`; only `$ref` with a JSON pointer is taken"));
                        }
                        _ => self.count(member)?,
                    };
                    sum = sum.saturating_add(size);
                }
            }
            _ => {}
        }
        Ok(sum)
    }

    fn count_all(&mut self, schemas: impl Iterator<Item = &'a Value>) -> Result<u64, String> {
        let mut sum: u64 = 0;
        for schema in schemas {
            sum = sum.saturating_add(self.count(schema)?);
        }
        Ok(sum)
    }

    fn behind(&mut self, reference: &'a str) -> Result<u64, String> {
        if let Some(size) = self.known.get(reference) {
            // Round in a circle: as deep as the value that is checked.
            return Ok(size.unwrap_or(1));
        }
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let target = target.ok_or_else(|| format!("its reference {reference:?} is no JSON pointer into it"))?;
        self.known.insert(reference, None);
        let size = self.count(target)?;
        self.known.insert(reference, Some(size));
        Ok(size)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

/// Errors repeat the value they are about, which may be long.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_match_is_named_with_its_place() {
        let schema = Schema::compile(
            r#"{"type":"object","properties":{"n":{"type":"integer"},"s":{"type":"string","pattern":"^a+$"}},
                "required":["n"],"additionalProperties":false}"#,
        )
        .expect("a schema");

        assert_eq!(schema.check(r#"{"n":1,"s":"aa"}"#), Ok(()));
        let cases = [
            (r#"{"n":"one"}"#, "at /n: "),
            ("{}", "at the whole: "),
            (r#"{"n":1,"s":"b"}"#, "at /s: "),
            ("{n:1}", "it is not valid JSON: "),
            ("", "it is not valid JSON: "),
        ];
        for (text, expected) in cases {
            let wrong = schema.check(text).expect_err(text);
            assert!(wrong.starts_with(expected), "{text}: {wrong}");
        }
    }

    #[test]
    fn a_small_schema_that_is_large_to_check_is_refused() {
        let doubling = |levels: usize| {
            let def = |no: usize| {
                let next = serde_json::json!({ "$ref": format!("#/$defs/d{}", no + 1) });
                (format!("d{no}"), serde_json::json!({ "allOf": [next, next] }))
            };
            let mut defs: serde_json::Map<String, Value> = (0..levels).map(def).collect();
            defs.insert(format!("d{levels}"), serde_json::json!({ "type": "integer" }));
            serde_json::json!({ "$ref": "#/$defs/d0", "$defs": defs }).to_string()
        };

        assert!(Schema::compile(&doubling(10)).is_ok());
        assert!(Schema::compile(&doubling(40)).is_err());
        let tree = r##"{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}}}"##;
        assert!(Schema::compile(tree).expect("a schema").check(r#"{"left":{"right":{}}}"#).is_ok());
        assert!(Schema::compile(&format!(r#"{{"description":"{}"}}"#, "x".repeat(MOST_BYTES))).is_err());
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for schema in ["{", r#"{"type":"strang"}"#, r#"{"$ref":"http://127.0.0.1:9/schema.json"}"#] {
            assert!(Schema::compile(schema).is_err(), "{schema}");
        }
    }
}

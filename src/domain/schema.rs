//! JSON schemas that answers and arguments must match.

use std::fmt;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// As much as is said of what is wrong: enough to mend it, and no essay for the model to read.
const ERRORS_NAMED: usize = 3;
const LONGEST_ERROR: usize = 400;

/// A JSON schema, compiled. References lead nowhere but into itself.
pub struct Schema(Validator);

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(schema: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
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
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
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
    fn what_is_no_schema_is_refused() {
        for schema in ["{", r#"{"type":"strang"}"#, r#"{"$ref":"http://127.0.0.1:9/schema.json"}"#] {
            assert!(Schema::compile(schema).is_err(), "{schema}");
        }
    }
}

//! Error messages about JSON values, for the people who wrote the values: in the words of JSON, without names of Rust
//! types.

use serde_json::Error;

use super::row::shown;

/// Says what was expected and what was found. The message of `serde_json` itself has names of Rust types.
#[must_use]
pub fn plainly(error: &Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    // The line and column count within a part of the client's JSON, so they would mislead.
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    let wrong =
        ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|kind| text.strip_prefix(kind));
    match wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("expected {}, but got {}", named(expected), named(found)),
        None if text.starts_with("data did not match any variant") => {
            "it has none of the forms that it may have".to_owned()
        }
        None => shown(text),
    }
}

/// Translates serde's name for a kind of value, or for a value, into JSON's.
fn named(serde: &str) -> String {
    let (kind, value) = serde.split_once(' ').unwrap_or((serde, ""));
    match (kind, value) {
        ("map" | "struct", _) | ("a", "map") => "an object".to_owned(),
        ("sequence" | "tuple", _) | ("a", "sequence") => "an array".to_owned(),
        ("enum" | "unit" | "newtype", _) => "another form".to_owned(),
        ("integer" | "boolean", value) => format!("{} {}", article(kind), value.trim_matches('`')),
        ("floating", value) => format!("the decimal {}", value.trim_start_matches("point ").trim_matches('`')),
        ("string", value) => format!("the string {}", shown(value)),
        ("u8" | "u16" | "u32" | "u64" | "usize", _) => "an integer that is not negative".to_owned(),
        ("i8" | "i16" | "i32" | "i64", _) => "an integer".to_owned(),
        ("f32" | "f64", _) => "a number".to_owned(),
        _ => shown(serde),
    }
}

fn article(kind: &str) -> &'static str {
    if kind == "integer" { "the integer" } else { "the boolean" }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::DeserializeOwned;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "it is read and not used")]
    enum Either {
        Word(String),
        Object { word: String },
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "it is read and not used")]
    struct Tool {
        name: Option<String>,
        number: Option<u32>,
    }

    fn error<T: DeserializeOwned + std::fmt::Debug>(json: &str) -> String {
        plainly(&serde_json::from_str::<T>(json).expect_err("it is wrong"))
    }

    #[test]
    fn no_error_names_a_type_of_this_program() {
        let cases = [
            (error::<Tool>("1"), "expected an object, but got the integer 1"),
            (error::<Tool>("null"), "expected an object, but got null"),
            (error::<Tool>(r#"{"name":{"a":1}}"#), "expected a string, but got an object"),
            (error::<Tool>(r#"{"name":[1]}"#), "expected a string, but got an array"),
            (error::<Tool>(r#"{"name":true}"#), "expected a string, but got the boolean true"),
            (
                error::<Tool>(r#"{"number":"x, expected y"}"#),
                "expected an integer that is not negative, but got the string \"x, expected y\"",
            ),
            (error::<Tool>(r#"{"number":1.5}"#), "expected an integer that is not negative, but got the decimal 1.5"),
            (error::<Tool>(r#"{"number":-1}"#), "expected an integer that is not negative, but got the integer -1"),
            (error::<Vec<Tool>>(r#""x""#), "expected an array, but got the string \"x\""),
            (error::<BTreeMap<String, String>>("[]"), "expected an object, but got an array"),
            (error::<Either>("7"), "it has none of the forms that it may have"),
            (error::<Tool>(r#"{"name":"a","name":"b"}"#), "duplicate field `name`"),
            (error::<Tool>("{"), "EOF while parsing an object at line 1 column 1"),
        ];

        for (said, expected) in cases {
            assert_eq!(said, expected);
        }
    }
}

//! JSON schemas that answers and arguments must match.
//!
//! Schemas come from rows, and answers from upstreams, so neither can be trusted to be cheap. Each is measured before
//! `jsonschema` sees it, and deep values are checked on a large stack of their own.

mod cost;
mod shape;

use std::fmt;
use std::thread;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Value, json};

use self::shape::Shape;

/// Characters of an error message: enough to correct the answer, and short for the model to read.
const LONGEST_ERROR: usize = 400;

/// Bytes of a schema.
const MOST_BYTES: usize = 256 << 10;
/// Regular expressions of a schema, keys of `patternProperties` among them.
const MOST_PATTERNS: usize = 64;
/// Bytes of one pattern as it is written.
const MOST_PATTERN_BYTES: usize = 2048;
/// KiB of one compiled pattern, and of all patterns of a schema.
const MOST_PATTERN_KIB: u64 = 256;
const MOST_PATTERNS_KIB: u64 = 1024;

/// Bytes of a text that is checked. No model writes that much.
const MOST_TEXT_BYTES: usize = 4 << 20;
/// The highest cost of a check: some tenths of a second at worst.
const MOST_COST: u64 = 4_000_000;
/// The highest cost of collecting errors: each error takes some hundred bytes.
const MOST_COST_OF_ERRORS: u64 = 50_000;

/// How deep checking recurses, in subschemas within each other.
const MOST_DEPTH: usize = 4096;
/// Up to this depth, the check runs on the caller's stack.
const DEPTH_ON_ANY_STACK: usize = 96;
/// The stack for deeper checks and for compiling. Only the used part of it takes memory.
const STACK_BYTES: usize = 64 << 20;

/// A JSON schema, compiled. References are JSON pointers into itself.
pub struct Schema {
    validator: Validator,
    shape: Shape,
    bytes: u64,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(schema: &str) -> Result<Self, String> {
        if schema.len() > MOST_BYTES {
            return Err(format!("it is larger than {MOST_BYTES} bytes"));
        }
        let value: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
        let (mut shape, patterns) = Shape::of(&value)?;
        if patterns.len() > MOST_PATTERNS {
            return Err(format!("it has more than {MOST_PATTERNS} patterns"));
        }
        let mut patterns_kib = 0;
        for (no, pattern) in patterns {
            let kib = compiled_kib(pattern)?;
            patterns_kib += kib;
            if patterns_kib > MOST_PATTERNS_KIB {
                return Err(format!("its patterns need more than {MOST_PATTERNS_KIB} KiB when they are compiled"));
            }
            shape.add_pattern(no, kib);
        }
        let validator = on_a_deep_stack(|| options(MOST_PATTERN_KIB).build(&value).map_err(|error| said(&error)))??;
        // The factors were measured with schemas of many subschemas. A pattern counts with its limit, and as much again
        // for the automata that each thread builds from it.
        let bytes = 4096 + 2 * schema.len() as u64 + 2048 * shape.nodes.len() as u64 + (patterns_kib << 14);
        Ok(Self { validator, shape, bytes })
    }

    /// The approximate size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Checks a text, which must be JSON that matches.
    ///
    /// # Errors
    /// What is wrong with the text, for a model or a person to correct.
    pub fn check(&self, text: &str) -> Result<(), String> {
        if text.len() > MOST_TEXT_BYTES {
            return Err(format!("it is longer than {MOST_TEXT_BYTES} bytes, and not checked"));
        }
        let value = serde_json::from_str(text).map_err(|error| format!("it is not valid JSON: {error}"))?;
        match cost::depth(&value) * self.shape.in_place_depth {
            ..=DEPTH_ON_ANY_STACK => self.check_value(&value, text.len()),
            depth if depth <= MOST_DEPTH => on_a_deep_stack(|| self.check_value(&value, text.len()))?,
            _ => Err("it is nested too deeply to be checked".to_owned()),
        }
    }

    fn check_value(&self, value: &Value, bytes: usize) -> Result<(), String> {
        let of_errors = || cost::of_errors(&self.shape, value, MOST_COST);
        let is_small = cost::is_small(&self.shape, bytes, MOST_COST);
        if !is_small && of_errors().is_none() {
            return Err("it is too large to be checked against this schema".to_owned());
        }
        if self.validator.is_valid(value) {
            return Ok(());
        }
        match of_errors() {
            // For alternatives, `validate` collects the errors of each alternative and of those within it.
            Some(cost) if cost <= MOST_COST_OF_ERRORS => self.validator.validate(value).map_err(|error| {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "the whole".to_owned() } else { place };
                format!("at {place}: {}", said(&error))
            }),
            _ => Err("it does not match the schema".to_owned()),
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

/// Patterns come from rows: they run in linear time, with a bound on their memory.
fn options(pattern_kib: u64) -> jsonschema::ValidationOptions<'static> {
    let bytes = usize::try_from(pattern_kib << 10).expect("it is small");
    let patterns = PatternOptions::regex().size_limit(bytes).dfa_size_limit(bytes);
    jsonschema::options().with_pattern_options(patterns)
}

/// The size of a compiled pattern in KiB, rounded up to a power of two.
fn compiled_kib(pattern: &str) -> Result<u64, String> {
    let shown = shortened(pattern);
    if pattern.len() > MOST_PATTERN_BYTES {
        return Err(format!("its pattern '{shown}' is longer than {MOST_PATTERN_BYTES} bytes"));
    }
    let schema = json!({ "pattern": pattern });
    let mut kib = 1;
    while options(kib).build(&schema).is_err() {
        kib *= 2;
        if kib > MOST_PATTERN_KIB {
            return Err(format!(
                "its pattern '{shown}' cannot be compiled: it is not a regular expression without look-around and \
                 back-references, or it needs more than {MOST_PATTERN_KIB} KiB"
            ));
        }
    }
    Ok(kib)
}

/// Runs deeply recursive work on a stack of a known size.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let done = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let done = done.map_err(|error| format!("no thread can be started to read it: {error}"))?;
        done.join().map_err(|_| "it cannot be read".to_owned())
    })
}

fn said(error: &jsonschema::ValidationError<'_>) -> String {
    shortened(&error.to_string())
}

/// Cuts a message: errors repeat the value they are about, which may be long.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;

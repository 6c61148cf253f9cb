//! Answers that must match the JSON schema their row asks for.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::domain::json_error::plainly;
use crate::domain::outcome::FailureReason;
use crate::domain::request::RequestData;
use crate::domain::response::Fields;
use crate::domain::schema::Schema;

/// The key of a batch's metadata that says whether its answers are checked.
const METADATA_KEY: &str = "ensure_schema";
/// Bytes of compiled schemas that are kept. Rows of one batch mostly ask for one schema.
const SCHEMA_BYTES: u64 = 64 << 20;
const SCHEMAS_KEPT: usize = 256;
/// Shorter texts are checked in no time.
const LONG_TEXT: usize = 16 << 10;

/// Schemas that were compiled, by their texts.
type Schemas = Cache<String, Arc<Schema>, Bytes>;

#[derive(Clone)]
struct Bytes;

impl Weighter<String, Arc<Schema>> for Bytes {
    fn weight(&self, text: &String, schema: &Arc<Schema>) -> u64 {
        text.len() as u64 + schema.bytes()
    }
}

/// Which rows are checked, and the schemas that were compiled for it.
pub struct AnswerSchemas {
    by_default: bool,
    corrections: u32,
    compiled: Arc<Schemas>,
}

impl AnswerSchemas {
    /// Checks the rows of batches that ask for it and, `by_default`, of those that do not say. A model is asked to
    /// correct its answer `corrections` times at most.
    #[must_use]
    pub fn new(by_default: bool, corrections: u32) -> Self {
        // One shard, so that the largest schema has room.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(SCHEMAS_KEPT)
            .weight_capacity(SCHEMA_BYTES)
            .build()
            .expect("both capacities are given");
        let compiled = Cache::with_options(options, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { by_default, corrections, compiled: Arc::new(compiled) }
    }

    pub(super) fn corrections(&self) -> u32 {
        self.corrections
    }

    /// Whether the row's answer is to be checked, if the row asks for a schema.
    pub(super) fn applies_to(&self, data: &RequestData) -> bool {
        match data.metadata.get(METADATA_KEY).map(String::as_str) {
            Some("true") => true,
            Some(_) => false,
            None => self.by_default,
        }
    }

    /// The schema that the answer of a row must match: that of `text.format` or of `response_format.json_schema`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn schema(&self, format: Option<&RawValue>) -> Result<Option<RowSchema>, FailureReason> {
        /// Either API's way to ask for a schema.
        #[derive(Deserialize)]
        struct Format {
            r#type: String,
            schema: Option<Box<RawValue>>,
            json_schema: Option<Box<RawValue>>,
        }
        let Some(format) = format else { return Ok(None) };
        let wrong = |error: String| {
            FailureReason::Unsupported(format!("Answers cannot be checked against the row's schema: {error}."))
        };
        let format: Format = serde_json::from_str(format.get()).map_err(|error| wrong(plainly(&error)))?;
        if format.r#type != "json_schema" {
            return Ok(None);
        }
        let nested = format.json_schema.map(|json| Fields::read(json.get().as_bytes()));
        let nested = nested.transpose().map_err(|error| wrong(plainly(&error)))?;
        let schema = format.schema.or_else(|| nested.and_then(|mut nested| nested.remove("schema")));
        let Some(schema) = schema else { return Ok(None) };
        let schema = RowSchema { text: schema, schemas: self.compiled.clone() };
        schema.compiled().map_err(wrong)?;
        Ok(Some(schema))
    }
}

/// A schema that a row asks for, and that can be compiled. The row holds its text only, so that what is compiled takes
/// no more memory than the cache has, however many rows wait for answers.
pub(super) struct RowSchema {
    text: Box<RawValue>,
    schemas: Arc<Schemas>,
}

impl RowSchema {
    /// Checks a text, which must be JSON that matches.
    ///
    /// # Errors
    /// What is wrong with it, for a model or a person to mend.
    pub(super) fn check(&self, text: &str) -> Result<(), String> {
        let schema = self.compiled()?;
        if text.len() < LONG_TEXT { schema.check(text) } else { aside(|| schema.check(text)) }
    }

    fn compiled(&self) -> Result<Arc<Schema>, String> {
        self.schemas.get_or_insert_with(self.text.get(), || aside(|| Schema::compile(self.text.get())).map(Arc::new))
    }
}

/// Does what can take some tenths of a second, while another thread takes over what waits for this one: heartbeats must
/// not wait for it. A runtime of one thread has no other.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::response::raw;

    #[test]
    fn schemas_that_rows_hold_take_no_more_than_the_cache_has() {
        let schemas = AnswerSchemas::new(true, 0);
        let format = |no: usize| {
            let patterns = json!({ "a": { "pattern": format!("^([a-f]|[b-g]){{1,100}}{no}$") } });
            raw(&json!({ "type": "json_schema", "schema": { "properties": patterns } }))
        };

        let rows: Vec<RowSchema> =
            (0..200).map(|no| schemas.schema(Some(&format(no))).expect("a schema").expect("one")).collect();

        assert!(schemas.compiled.weight() <= SCHEMA_BYTES);
        assert!(schemas.compiled.len() > 1);
        assert!(schemas.compiled.len() < rows.len(), "they would take more than there is room for");
        for row in &rows {
            assert_eq!(row.check(r#"{"b":7}"#), Ok(()));
        }
        assert!(schemas.compiled.weight() <= SCHEMA_BYTES);
    }
}

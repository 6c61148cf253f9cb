//! Answers that must match the JSON schema their row asks for.

use std::sync::Arc;

use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::json_error::plainly;
use crate::domain::outcome::FailureReason;
use crate::domain::request::RequestData;
use crate::domain::response::Fields;
use crate::domain::schema::Schema;

/// The key of a batch's metadata that says whether its answers are checked.
const METADATA_KEY: &str = "ensure_schema";
/// Rows of one batch mostly ask for one schema.
const SCHEMAS_KEPT: usize = 256;

/// Which rows are checked, and the schemas that were compiled for it.
pub struct Ensured {
    by_default: bool,
    corrections: u32,
    schemas: Cache<String, Arc<Schema>>,
}

impl Ensured {
    /// Checks the rows of batches that ask for it and, `by_default`, of those that do not say. A model is asked to
    /// correct its answer `corrections` times at most.
    #[must_use]
    pub fn new(by_default: bool, corrections: u32) -> Self {
        Self { by_default, corrections, schemas: Cache::new(SCHEMAS_KEPT) }
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
    pub(super) fn schema(&self, format: Option<&RawValue>) -> Result<Option<Arc<Schema>>, FailureReason> {
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
        let compile = || Schema::compile(schema.get()).map(Arc::new).map_err(wrong);
        self.schemas.get_or_insert_with(schema.get(), compile).map(Some)
    }
}

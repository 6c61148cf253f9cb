//! Headers that tell an upstream, and whatever is in between, which row a call is for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::MetadataHeader;
use crate::domain::ids::RequestId;

static BATCH_ID: HeaderName = HeaderName::from_static("x-batchwright-batch-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static CUSTOM_ID: HeaderName = HeaderName::from_static("x-batchwright-custom-id");

/// What stands for itself is printable ASCII without the percent sign.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
/// Bytes of a longest `custom_id` or value that is sent: servers refuse requests whose headers are too long.
const LONGEST: usize = 1024;
/// How long the two values are, for every row.
const BATCH_ID_BYTES: usize = 38;
const TRACEPARENT_BYTES: usize = 55;

/// `x-batchwright-batch-id`, `x-batchwright-custom-id` with all but printable ASCII percent-encoded, and `traceparent`
/// (<https://www.w3.org/TR/trace-context/#traceparent-header>), by which a batch is one trace and a row a span of it;
/// and what the settings choose of the batch's metadata.
#[derive(Debug, Clone)]
pub struct RowHeaders {
    row: RequestId,
    /// None if it is longer than [`LONGEST`].
    custom_id: Option<HeaderValue>,
    metadata: ChosenMetadata,
}

/// The headers of the metadata that the settings choose. Rows of different batches can have the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ChosenMetadata(Vec<(HeaderName, HeaderValue)>);

impl RowHeaders {
    /// The headers of a row.
    #[must_use]
    pub fn of(row: RequestId, custom_id: &str) -> Self {
        Self { row, custom_id: encoded(custom_id), metadata: ChosenMetadata::default() }
    }

    /// The same with what these headers tell of the batch's metadata. A key that it does not have has no header.
    #[must_use]
    pub fn with_metadata(self, chosen: &[MetadataHeader], metadata: &BTreeMap<String, String>) -> Self {
        let header = |MetadataHeader { key, name }: &MetadataHeader| Some((name.clone(), encoded(metadata.get(key)?)?));
        Self { metadata: ChosenMetadata(chosen.iter().filter_map(header).collect()), ..self }
    }

    pub(super) fn metadata(&self) -> &ChosenMetadata {
        &self.metadata
    }

    /// Adds the headers to those of a call.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        let RequestId { batch, row } = self.row;
        headers.insert(BATCH_ID.clone(), value(BATCH_ID_BYTES, format_args!("{batch}")));
        // A span's number must not be 0. It is not sampled: whether it is kept is for the upstream to decide.
        let span = u64::from(row) + 1;
        let traceparent = value(TRACEPARENT_BYTES, format_args!("00-{}-{span:016x}-00", batch.0.simple()));
        headers.insert(TRACEPARENT.clone(), traceparent);
        if let Some(custom_id) = &self.custom_id {
            headers.insert(CUSTOM_ID.clone(), custom_id.clone());
        }
        self.metadata.add_to(headers);
    }
}

impl ChosenMetadata {
    /// Adds the headers to those of a call.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// A value of so many bytes, which are allocated once.
fn value(bytes: usize, text: fmt::Arguments<'_>) -> HeaderValue {
    let mut value = String::with_capacity(bytes);
    value.write_fmt(text).expect("a text takes what is written");
    HeaderValue::try_from(value).expect("it is printable ASCII")
}

/// A text with all but printable ASCII percent-encoded; `None` if that is longer than [`LONGEST`].
fn encoded(text: &str) -> Option<HeaderValue> {
    let text = Cow::from(utf8_percent_encode(text, ENCODED));
    (text.len() <= LONGEST).then(|| HeaderValue::from_str(&text).expect("it is printable ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::BatchId;

    #[test]
    fn a_custom_id_is_sent_whatever_it_is_made_of() {
        let cases = [
            ("row-1", Some("row-1".to_owned())),
            ("a b/c?d", Some("a b/c?d".to_owned())),
            ("50%", Some("50%25".to_owned())),
            ("zwölf\r\nx: y", Some("zw%C3%B6lf%0D%0Ax: y".to_owned())),
            ("", Some(String::new())),
            (&"x".repeat(LONGEST), Some("x".repeat(LONGEST))),
            (&"é".repeat(LONGEST / 3), None),
        ];
        for (custom_id, expected) in cases {
            let mut headers = HeaderMap::new();
            let batch = BatchId::new();
            RowHeaders::of(RequestId { batch, row: 7 }, custom_id).add_to(&mut headers);

            let sent = headers.get(&CUSTOM_ID).map(|value| value.to_str().expect("ASCII").to_owned());
            assert_eq!(sent, expected, "{custom_id}");
            assert!(headers[&BATCH_ID].to_str().expect("ASCII").starts_with("batch_"));
            let traceparent = format!("00-{}-0000000000000008-00", batch.0.simple());
            assert_eq!(headers[&TRACEPARENT], traceparent);
        }
    }
}

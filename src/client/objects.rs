//! Files and batches as the server tells of them, and what is asked of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::domain::batch::{BatchError, BatchStatus, Counts};

/// A file on the server. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Its id.
    pub id: String,
    /// The name it was uploaded under.
    pub filename: String,
    /// What it is for.
    #[serde(default)]
    pub purpose: String,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded.
    pub created_at: i64,
    /// When the server removes it; never if unset.
    pub expires_at: Option<i64>,
    /// What else the server says of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A batch on the server. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteBatch {
    /// Its id.
    pub id: String,
    /// The endpoint of its rows.
    pub endpoint: String,
    /// Where it stands.
    #[serde(deserialize_with = "status", serialize_with = "status_text")]
    pub status: BatchStatus,
    /// Why it failed validation.
    #[serde(default, deserialize_with = "errors", serialize_with = "error_list")]
    pub errors: Vec<BatchError>,
    /// The file with its rows.
    pub input_file_id: String,
    /// The window it was given.
    pub completion_window: String,
    /// The file with the lines of rows that succeeded, once the batch has ended.
    pub output_file_id: Option<String>,
    /// The file with the lines of all other rows, once the batch has ended.
    pub error_file_id: Option<String>,
    /// When it was created.
    pub created_at: i64,
    /// When its window closes.
    pub expires_at: Option<i64>,
    /// How many rows it has, and how many have run.
    #[serde(default, deserialize_with = "counts")]
    pub request_counts: Counts,
    /// The client's notes.
    pub metadata: Option<BTreeMap<String, String>>,
    /// What else the server says of it.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A batch to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BatchRequest {
    /// The file with its rows.
    pub input_file_id: String,
    /// The endpoint of its rows, such as `/v1/chat/completions`.
    pub endpoint: String,
    /// One of the windows that the server is configured with.
    pub completion_window: String,
    /// Notes for the client's own use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Two requests with the same key make one batch. With a key the request is sent again if the connection breaks.
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

impl BatchRequest {
    /// A batch with a window of 24 hours.
    #[must_use]
    pub fn new(input_file_id: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            input_file_id: input_file_id.into(),
            endpoint: endpoint.into(),
            completion_window: "24h".to_owned(),
            metadata: None,
            idempotency_key: None,
        }
    }
}

/// A batch of the rows of another one that did not succeed: an extension of batchwright.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetryRequest {
    /// The batch with the rows.
    pub retry_of: String,
    /// Which of them, and what of them is changed.
    pub retry: RowPatch,
    /// As of a [`BatchRequest`].
    #[serde(skip)]
    pub idempotency_key: Option<String>,
}

/// Which rows are sent again, and with which body.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RowPatch {
    /// Only rows that failed with one of these codes; all if it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// Members that replace those of each row's body.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub body: Map<String, Value>,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BatchStatus, D::Error> {
    let text = String::deserialize(deserializer)?;
    BatchStatus::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("'{text}' is no status of a batch")))
}

fn errors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<BatchError>, D::Error> {
    #[derive(Deserialize)]
    struct Errors {
        data: Vec<BatchError>,
    }
    Ok(Option::<Errors>::deserialize(deserializer)?.map_or_else(Vec::new, |errors| errors.data))
}

fn counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Counts, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn status_text<S: Serializer>(status: &BatchStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str())
}

fn error_list<S: Serializer>(errors: &Vec<BatchError>, serializer: S) -> Result<S::Ok, S::Error> {
    let list = (!errors.is_empty()).then(|| json!({ "object": "list", "data": errors }));
    list.serialize(serializer)
}

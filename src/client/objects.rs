//! Files and batches as the server tells of them, and what is asked of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::batch::{BatchError, BatchStatus, Counts};

/// A file on the server. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RemoteFile {
    /// Its id.
    pub id: String,
    /// The name it was uploaded under.
    pub filename: String,
    /// Its size.
    pub bytes: u64,
    /// When it was uploaded.
    pub created_at: i64,
    /// When the server removes it; never if unset.
    pub expires_at: Option<i64>,
}

/// A batch on the server. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RemoteBatch {
    /// Its id.
    pub id: String,
    /// The endpoint of its rows.
    pub endpoint: String,
    /// Where it stands.
    #[serde(deserialize_with = "status")]
    pub status: BatchStatus,
    /// Why it failed validation.
    #[serde(default, deserialize_with = "errors")]
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
    pub request_counts: Counts,
    /// The client's notes.
    pub metadata: Option<BTreeMap<String, String>>,
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

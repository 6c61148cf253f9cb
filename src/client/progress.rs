//! How a batch gets on: an extension of batchwright, which other servers do not have.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ANSWER_TIMEOUT, Client, ClientError, json};

/// How a batch gets on. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoteProgress {
    /// Always `batch.progress`.
    pub object: String,
    /// The batch.
    pub batch_id: String,
    /// The status that the batch has.
    pub status: String,
    /// What is done at the moment, such as `running` or `paused`.
    pub phase: String,
    /// Its rows.
    pub rows: RemoteRows,
    /// How fast they end.
    pub rate: RemoteRate,
    /// When the last one may end.
    pub estimate: Option<RemoteEstimate>,
    /// Why it does not get on faster.
    pub reason: Option<RemoteReason>,
    /// What else the server says.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The rows of a batch, each in one of these states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRows {
    /// All of them.
    pub total: u64,
    /// Not begun.
    pub waiting: u64,
    /// Their calls are under way.
    pub running: u64,
    /// They wait for another attempt.
    pub retrying: u64,
    /// They succeeded.
    pub completed: u64,
    /// They ran and failed.
    pub failed: u64,
}

/// How fast rows end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RemoteRate {
    /// Rows that end in a second.
    pub rows_per_second: f64,
    /// Tokens of answers in a second.
    #[serde(default)]
    pub tokens_per_second: f64,
    /// The time in which they were counted.
    #[serde(default)]
    pub seconds: f64,
}

/// When a batch may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteEstimate {
    /// Probably.
    pub ends_at: i64,
    /// In nine of ten cases no later.
    pub ends_at_p90: Option<i64>,
}

/// Why a batch does not get on faster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteReason {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// When it began.
    pub since: Option<i64>,
    /// When it will be over.
    pub until: Option<i64>,
}

impl Client {
    /// How a batch gets on, or `None` if the server does not tell. Whether there is such a batch, only
    /// [`batch`](Self::batch) says.
    ///
    /// # Errors
    /// The server refused the key, or could not be reached.
    pub async fn progress(&self, id: &str) -> Result<Option<RemoteProgress>, ClientError> {
        let url = self.url(&["batches", id, "progress"]);
        match json::<RemoteProgress>(self.http.get(url).timeout(ANSWER_TIMEOUT)).await {
            Ok(progress) => Ok((progress.object == "batch.progress").then_some(progress)),
            Err(ClientError::Unexpected(_)) => Ok(None),
            Err(error) if error.is_not_there() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

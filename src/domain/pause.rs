//! Batches that are paused: none of their rows starts until they are resumed. Their windows go on.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// A batch is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub cause: PauseCause,
}

/// Why a batch is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PauseCause {
    /// Its owner asked for it.
    Requested,
    /// All of its first rows failed, and alike.
    AlikeFailures {
        /// The code of their failures.
        failure: String,
        /// The HTTP status of the answers, if there were any.
        status: Option<u16>,
        /// How many rows there were.
        rows: u64,
        /// What the first of them was told; empty if an earlier version has paused the batch.
        #[serde(default)]
        said: String,
    },
    /// The rows that run first have run.
    Canary {
        /// How many rows there were.
        rows: u64,
        /// How many of them failed.
        failed: u64,
    },
}

impl PauseCause {
    /// The cause as a sentence for the owner.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Requested => "The batch was paused by request.".to_owned(),
            Self::AlikeFailures { failure, status, rows, said } => {
                let status = status.map_or_else(String::new, |status| format!(", with status {status}"));
                let said = if said.is_empty() { String::new() } else { format!(": {}", said.trim_end_matches('.')) };
                format!("All of the first {rows} rows failed alike: {failure}{status}{said}.")
            }
            Self::Canary { rows, failed } => {
                format!("The {rows} rows that run first have run; {failed} of them failed.")
            }
        }
    }
}

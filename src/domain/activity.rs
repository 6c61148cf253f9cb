//! What a daemon does at a moment, as it tells with its heartbeats: the rows of each batch that it runs, and the state
//! of the upstream as its calls have shown it. Any replica of the API can so answer why a batch is slow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{BatchId, DaemonId};
use super::recent_course::RecentCourse;
use super::text_enum::text_enum;
use super::time::Timestamp;

/// Batches that are told of, those with the most rows under way first. A daemon rarely has rows of more.
pub const MAX_BATCHES: usize = 256;
/// Models that are told of, likewise.
pub const MAX_MODELS: usize = 64;
/// Models whose recent course is told: it is the largest part of what a heartbeat writes.
pub const MAX_COURSES: usize = 16;

/// What a daemon does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonActivity {
    /// The batches of which it has rows.
    pub batches: Vec<BatchActivity>,
    /// The models of which it has or had rows.
    pub models: Vec<ModelActivity>,
    /// Models of open batches that none of its upstreams has.
    pub unserved: Vec<String>,
}

/// The rows of a batch that a daemon has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchActivity {
    /// The batch.
    pub id: BatchId,
    /// Rows with a call under way.
    pub running: u64,
    /// Rows whose last attempt failed, and which wait for the next.
    pub retrying: u64,
    /// Why most of those wait: a code of `FailureReason`.
    pub retrying_for: Option<String>,
    /// When the last row began.
    pub last_begun: Option<Timestamp>,
}

impl BatchActivity {
    /// No row of a batch.
    #[must_use]
    pub fn none(id: BatchId) -> Self {
        Self { id, running: 0, retrying: 0, retrying_for: None, last_begun: None }
    }
}

/// The calls of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelActivity {
    /// The model, as rows name it.
    pub model: String,
    /// Rows of all batches with a call under way.
    pub running: u64,
    /// Batches that these are of.
    pub batches: u64,
    /// The time that a row takes, in seconds, if it is known.
    pub seconds_per_row: Option<f64>,
    /// The upstreams that have the model.
    pub upstreams: Vec<UpstreamActivity>,
    /// What was recorded of it in the last minutes. Empty of a version that does not tell, and of all but the models
    /// with the most rows under way.
    #[serde(default)]
    pub recent: RecentCourse,
}

/// The state of an upstream for a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamActivity {
    /// Its name.
    pub upstream: String,
    /// Rows of the model under way there.
    pub running: u64,
    /// How many calls of the model may be under way.
    pub limit: u64,
    /// Why no more may be.
    pub limited_by: CallLimit,
    /// Whether it takes calls.
    pub state: UpstreamState,
}

text_enum! {
    /// Why no more calls of a model may be under way at an upstream.
    pub enum CallLimit {
        /// It is not known yet how many the server takes: the limit grows with its answers.
        Searching = "searching",
        /// More calls bring no more throughput.
        Throughput = "throughput",
        /// The server refuses more.
        Refusals = "refusals",
        /// The settings allow no more.
        Settings = "settings",
    }
}

/// Whether an upstream takes calls of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum UpstreamState {
    /// It does.
    Open,
    /// It limits calls in time.
    Limited {
        /// When the next call may be sent.
        until: Option<Timestamp>,
        /// What it said last.
        why: String,
    },
    /// It is not there, or takes no rows at all. One call at a time asks whether it is back.
    Down {
        /// Since when.
        since: Option<Timestamp>,
        /// Why.
        why: String,
    },
    /// It is outside the hours that the settings give it.
    Resting {
        /// These hours.
        hours: String,
    },
}

/// What one daemon told.
#[derive(Debug, Clone, PartialEq)]
pub struct DaemonReport {
    /// The daemon.
    pub daemon: DaemonId,
    /// How long ago its last heartbeat was, on the database's clock.
    pub age: Duration,
    /// What it does. Empty if it is of a version that does not tell.
    pub activity: DaemonActivity,
}

impl Serialize for CallLimit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for CallLimit {
    /// A word of a later version is as good as the plainest of this one.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?).unwrap_or(Self::Searching))
    }
}

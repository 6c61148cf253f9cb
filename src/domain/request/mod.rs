//! A request and its states. The state is part of the type; only `transitions` changes it.
//!
//! ```text
//! Request<Pending> --claim--> Request<Claimed> --process--> Request<Processing> --complete--> Request<Completed>
//!       ^                          |                               |----------------fail----> Request<Failed>
//!       |------unclaim-------------'                               '---------------cancel---> Request<Canceled>
//!       |------------------------------retry (attempt + 1, not_before)---------- Request<Failed>
//!       |------------------------------park (parks + 1, not_before)------------- Request<Failed>
//!       |------------------------------unsent (no call was made)---------------- Request<Failed>
//!       '------------------------------requeue---------------------------------- Request<Canceled>
//! ```
//!
//! A processor takes a claimed request to one of the three final states. The daemon claims, retries and records.

mod states;
mod transitions;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub use states::{Canceled, CancellationReason, Claimed, Completed, Failed, Pending, Processing, RequestState};

use super::endpoint::Endpoint;
use super::ids::RequestId;
use super::owner::Owner;
use super::time::Timestamp;
use super::usage::Usage;

/// One row of a batch on its way to an outcome, in state `S`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<S: RequestState> {
    /// What to send.
    pub data: RequestData,
    /// How many attempts came before this one.
    pub attempt: u32,
    /// How many times it was parked since the last attempt that counts.
    pub parks: u32,
    /// Whether this daemon has run it before, so that there may be steps of it.
    pub has_run: bool,
    /// Tokens of answers to it that were of no use. They count in the usage of its batch.
    pub spent: Usage,
    /// The data of this state.
    pub state: S,
}

/// The data of a row, the same for every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestData {
    /// The row's id, and its `Idempotency-Key` upstream.
    pub id: RequestId,
    /// The owner of the row's batch.
    pub owner: Owner,
    /// The client's name for the row.
    pub custom_id: String,
    /// The endpoint to call.
    pub endpoint: Endpoint,
    /// The model the row asks for; empty where the endpoint lets the server choose.
    pub model: Arc<str>,
    /// The request body, byte for byte as uploaded.
    pub body: Bytes,
    /// The metadata of the row's batch.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// When the batch's window closes.
    pub expires_at: Timestamp,
}

/// The result of a processor's work on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestCompletionResult {
    /// With an answer.
    Completed(Request<Completed>),
    /// Without an answer; the daemon decides whether to retry or to park it.
    Failed(Request<Failed>),
    /// Cancelled before it ended; the row stays owed.
    Canceled(Request<Canceled>),
}

#[cfg(test)]
pub(in crate::domain) mod tests;

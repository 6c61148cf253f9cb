//! How the last attempts ended of rows that are to be tried again: if their batch ends first, their lines say it.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::domain::ids::RequestId;
use crate::domain::outcome::FailureReason;

/// Rows whose last failure is kept. It is kept in memory, for the rows that this daemon has tried last: what another
/// daemon writes the line of, or what comes after so many others, has the line without it.
const MOST: usize = 16_384;

/// The last failure of each row, as a sentence.
pub(in crate::daemon) struct LastFailures(Cache<RequestId, Arc<str>>);

impl LastFailures {
    pub(in crate::daemon) fn new() -> Self {
        Self(Cache::new(MOST))
    }

    pub(super) fn note(&self, row: RequestId, reason: &FailureReason) {
        self.0.insert(row, reason.message().as_ref().into());
    }

    pub(in crate::daemon) fn of(&self, row: RequestId) -> Option<Arc<str>> {
        self.0.get(&row)
    }
}

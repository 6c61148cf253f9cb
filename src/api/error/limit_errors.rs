//! What clients are told who are beyond a limit of their project.

use axum::http::StatusCode;

use super::{ApiError, RetryAdvice};
use crate::domain::owner::Owner;
use crate::domain::project_limits::{ExceededLimit, QueuedUnit};

impl ApiError {
    /// 429: the client has made all calls that it may make now.
    #[must_use]
    pub fn rate_limited(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "requests", message.into()).code("rate_limit_exceeded")
    }

    /// 429: the project has as many uploads under way as it may.
    #[must_use]
    pub fn too_many_uploads_of_project(limit: u32) -> Self {
        let mut error = Self::rate_limited(format!(
            "Rate limit reached for uploads of this project: it may have {limit} under way at once. Please try again \
             when one has ended."
        ));
        error.retry = RetryAdvice::Soon;
        error
    }

    /// 429: the batch is beyond a limit of its project. Room comes when other batches have run, if ever, so that SDKs
    /// are told not to send all rows again at once.
    #[must_use]
    pub fn beyond_limit(exceeded: &ExceededLimit, project: &Owner) -> Self {
        let kind = match exceeded.unit {
            QueuedUnit::Rows => "requests",
            QueuedUnit::Tokens => "tokens",
        };
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, kind, exceeded.message(project));
        error.retry = RetryAdvice::Never;
        error.code(exceeded.code())
    }

    /// 400, as for a file that is too large: the project has no room for more bytes.
    #[must_use]
    pub fn storage_limit(limit: u64, used: u64) -> Self {
        let message = format!(
            "Storage limit reached for this project: it may store {limit} bytes, of which {used} are used, and has no \
             room for this upload. Delete files that are not needed any more."
        );
        Self::invalid(message).code("storage_limit_exceeded")
    }
}

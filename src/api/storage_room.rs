//! The room that a project has for more bytes. Uploads that come at the same moment may together pass it.

use axum::http::HeaderMap;

use super::request_key::key_in;
use super::{ApiError, App};
use crate::domain::owner::Owner;
use crate::domain::report::IntakeLimits;

/// What a project may store, and what it stores.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StorageRoom {
    /// The limit and what is used of it; none without a limit.
    limit: Option<(u64, u64)>,
}

impl StorageRoom {
    /// The room of a project. A request whose idempotency key was used before stores nothing, and needs none.
    pub(super) async fn for_request(app: &App, project: &Owner, headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(limit) = app.project_limits.of(project).storage_bytes else { return Ok(Self::default()) };
        let now = app.clock.now();
        if let Some(key) = key_in(headers)?
            && app.storage.key_use(project, &key, now).await?.is_some()
        {
            return Ok(Self::default());
        }
        Ok(Self { limit: Some((limit, app.storage.stored_bytes(project, now).await?)) })
    }

    /// The room of a project, whatever is asked for.
    pub(crate) async fn of(app: &App, project: &Owner) -> Result<Self, ApiError> {
        Self::for_request(app, project, &HeaderMap::new()).await
    }

    /// How many more bytes there may be.
    pub(super) fn left(self) -> u64 {
        self.limit.map_or(u64::MAX, |(limit, used)| limit.saturating_sub(used))
    }

    /// Refuses an upload of so many bytes, or of any if there is no room at all.
    pub(super) fn check(self, bytes: u64) -> Result<(), ApiError> {
        match self.limit {
            Some((limit, used)) if bytes.max(1) > self.left() => Err(ApiError::storage_limit(limit, used)),
            _ => Ok(()),
        }
    }

    /// The limits of an upload for which there is this room.
    pub(crate) fn within(self, limits: &IntakeLimits) -> IntakeLimits {
        IntakeLimits { max_file_bytes: limits.max_file_bytes.min(self.left()), ..limits.clone() }
    }

    /// The refusal of an upload that was cut off [`within`](Self::within) these limits; `usual` if there is more room.
    pub(super) fn too_large(self, limits: &IntakeLimits, usual: ApiError) -> ApiError {
        match self.limit {
            Some((limit, used)) if self.left() < limits.max_file_bytes => ApiError::storage_limit(limit, used),
            _ => usual,
        }
    }
}

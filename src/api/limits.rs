//! `GET /v1/limits`: what the caller's project may use, and what is left of it. An extension.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiError, AppState, Caller};
use crate::domain::project_limits::COUNTED_BATCHES;

/// What a project may use.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitsObject {
    /// Always `limits`.
    object: &'static str,
    /// The project of the caller's key; `default` without one.
    project: String,
    /// Calls in a minute, which each API process counts for itself; null: no limit. The headers `x-ratelimit-…` of
    /// every answer say how many are left.
    #[schema(required)]
    requests_per_minute: Option<u32>,
    /// Rows of batches in progress that have no result yet.
    queued_rows: QueuedRowsLimit,
    /// How many rows are under way beside other projects: with 3, three times as many as a project with 1.
    share: u32,
}

/// A limit of rows, and what is used of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueuedRowsLimit {
    /// How many there may be; null: no limit.
    #[schema(required)]
    limit: Option<u64>,
    /// How many there are.
    used: u64,
    /// How many more there may be; null: no limit.
    #[schema(required)]
    left: Option<u64>,
}

/// Tells what the caller's project may use, and what is left of it. An extension of batchwright.
#[utoipa::path(get, path = "/v1/limits", tag = "extensions", responses((status = 200, body = LimitsObject)))]
pub(super) async fn get_limits(
    State(app): AppState,
    Caller { owner, .. }: Caller,
) -> Result<Json<LimitsObject>, ApiError> {
    let limits = app.project_limits.of(&owner);
    let used = app.storage.rows_in_progress(&owner, COUNTED_BATCHES).await?.counts.owed();
    let left = limits.queued_rows.map(|limit| limit.saturating_sub(used));
    Ok(Json(LimitsObject {
        object: "limits",
        project: owner.to_string(),
        requests_per_minute: limits.requests_per_minute.map(Into::into),
        queued_rows: QueuedRowsLimit { limit: limits.queued_rows, used, left },
        share: limits.share().into(),
    }))
}

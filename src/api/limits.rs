//! `GET /v1/limits`: what the caller's project may use, and what is left of it. An extension.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_rate::CountedCall;
use super::{ApiError, AppState, Caller};
use crate::domain::project_limits::COUNTED_BATCHES;

/// What a project may use.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitsObject {
    /// Always `limits`.
    object: &'static str,
    /// The project of the caller's key; `default` without one.
    project: String,
    /// Calls in a minute, which each API process counts for itself. The headers `x-ratelimit-…` of every answer say the
    /// same. Without a limit they are not counted, and `used` is null.
    requests_per_minute: LimitUse,
    /// Rows of batches in progress that have no result yet.
    queued_rows: LimitUse,
    /// Input tokens of those rows, estimated from the bytes of their lines.
    queued_tokens: LimitUse,
    /// What happens to a batch beyond one of these two: `fail` or `wait`.
    over_limit: &'static str,
    /// Bytes of the files that are not deleted, and of the parts of uploads that are open.
    storage_bytes: LimitUse,
    /// Uploads under way at once, which each API process counts for itself.
    concurrent_uploads: LimitUse,
    /// How many rows are under way beside other projects: with 3, three times as many as a project with 1.
    share: u32,
}

/// A limit, and what is used of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitUse {
    /// How much there may be; null: no limit.
    #[schema(required)]
    limit: Option<u64>,
    /// How much there is.
    #[schema(required)]
    used: Option<u64>,
    /// How much more there may be; null: no limit.
    #[schema(required)]
    left: Option<u64>,
}

impl LimitUse {
    fn of(limit: Option<u64>, used: u64) -> Self {
        Self { limit, used: Some(used), left: limit.map(|limit| limit.saturating_sub(used)) }
    }

    fn of_calls(call: Option<CountedCall>) -> Self {
        let Some(CountedCall { limit, left }) = call else { return Self { limit: None, used: None, left: None } };
        let limit = limit.get();
        Self::of(Some(limit.into()), limit.saturating_sub(left).into())
    }
}

/// Tells what the caller's project may use, and what is left of it. An extension of batchwright.
#[utoipa::path(get, path = "/v1/limits", tag = "extensions", responses((status = 200, body = LimitsObject)))]
pub(super) async fn get_limits(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    call: Option<Extension<CountedCall>>,
) -> Result<Json<LimitsObject>, ApiError> {
    let limits = app.project_limits.of(&owner);
    let queued = app.storage.queued_input(&owner, COUNTED_BATCHES).await?;
    let stored = app.storage.stored_bytes(&owner, app.clock.now()).await?;
    let uploads = limits.concurrent_uploads.map(|limit| limit.get().into());
    Ok(Json(LimitsObject {
        object: "limits",
        project: owner.to_string(),
        requests_per_minute: LimitUse::of_calls(call.map(|Extension(call)| call)),
        queued_rows: LimitUse::of(limits.queued_rows, queued.rows),
        queued_tokens: LimitUse::of(limits.queued_tokens, queued.tokens()),
        over_limit: limits.over_limit().as_str(),
        storage_bytes: LimitUse::of(limits.storage_bytes, stored),
        concurrent_uploads: LimitUse::of(uploads, app.uploads.under_way(&owner).into()),
        share: limits.share().into(),
    }))
}

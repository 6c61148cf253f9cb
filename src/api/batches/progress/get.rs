//! `GET /v1/batches/{batch_id}/progress`: how far a batch is, when it will end, and why it is no faster.

use axum::Json;
use axum::extract::State;

use super::wire::BatchProgressObject;
use crate::api::batches::{not_found, parse_id};
use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::page::{Query, param};
use crate::api::{ApiError, AppState};
use crate::domain::row::shown;

/// Retrieves the progress of a batch: where its rows are, how fast they end, when the batch will, and why it does not
/// go faster.
///
/// An extension of batchwright: OpenAI's API has no such operation.
#[utoipa::path(get, path = "/v1/batches/{batch_id}/progress", tag = "extensions",
    params(
        ("batch_id" = String, Path, pattern = "^batch"),
        ("include" = Option<String>, Query, pattern = "^(throughput)?$",
            description = "`throughput`, for the course from its beginning")
    ),
    responses(
        (status = 200, body = BatchProgressObject),
        (status = 400, body = crate::api::error::ErrorBody),
        (status = 404, body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn get_batch_progress(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id<String>,
    query: Query,
) -> Result<Json<BatchProgressObject>, ApiError> {
    let has_throughput = match param(&query, "include") {
        None => false,
        Some("throughput") => true,
        Some(other) => {
            let message = format!("Invalid 'include': '{}'. Only 'throughput' can be included.", shown(other));
            return Err(ApiError::invalid(message).at("include").code("invalid_value"));
        }
    };
    let observed = app.observer(&owner).observe(parse_id(&id)?).await?;
    let observed = observed.ok_or_else(|| not_found(&id))?;
    Ok(Json(BatchProgressObject::new(&observed, app.prices.as_ref(), has_throughput)))
}

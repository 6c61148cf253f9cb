//! The models of the upstream.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, AppState};

/// Lists the models that rows may name: the upstream's own list, unchanged.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses(
    (status = 200, description = "The upstream's list of models"),
    (status = 502, description = "The upstream did not answer", body = super::error::ErrorBody)
))]
pub(super) async fn list_models(State(app): AppState) -> Result<Response, ApiError> {
    let json = [(header::CONTENT_TYPE, "application/json")];
    let answer = app.registry.route("").models().await.map_err(|error| ApiError::bad_upstream(error.to_string()))?;
    if !answer.is_success() {
        return Err(ApiError::bad_upstream(format!("The upstream answered with status {}.", answer.status)));
    }
    Ok((StatusCode::OK, json, answer.body).into_response())
}

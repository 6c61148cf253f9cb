//! The models of the upstreams.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, AppState};
use crate::upstream::model_list;

/// Lists the models that rows may name: the lists of all upstreams, and the names that the settings give models. The
/// list of an only upstream is passed on unchanged.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses(
    (status = 200, description = "The models that rows may name"),
    (status = 502, description = "No upstream answered", body = super::error::ErrorBody)
))]
pub(super) async fn list_models(State(app): AppState) -> Result<Response, ApiError> {
    let list = model_list(&app.registry).await.map_err(ApiError::bad_upstream)?;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], list).into_response())
}

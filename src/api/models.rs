//! The models of the upstreams.

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::extract::Id;
use super::{ApiError, AppState};
use crate::domain::row::shown;
use crate::upstream::{listed_model, model_list};

/// Lists the models that rows may name: the lists of all upstreams, and the names that the settings give models. The
/// list of an only upstream is passed on unchanged.
#[utoipa::path(get, path = "/v1/models", tag = "models", responses(
    (status = 200, description = "The models that rows may name"),
    (status = 502, description = "No upstream answered with a list of models", body = super::error::ErrorBody)
))]
pub(super) async fn list_models(State(app): AppState) -> Result<Response, ApiError> {
    let list = model_list(&app.registry).await.map_err(ApiError::bad_upstream)?;
    Ok(json(list))
}

/// Retrieves a model: its entry in the list of models.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path, description = "Its id; slashes may be percent-encoded")),
    responses(
        (status = 200, description = "The model"),
        (status = 404, description = "No upstream lists it", body = super::error::ErrorBody),
        (status = 502, description = "No upstream answered with a list of models", body = super::error::ErrorBody)
    )
)]
pub(super) async fn get_model(State(app): AppState, Id(model): Id) -> Result<Response, ApiError> {
    let entry = listed_model(&app.registry, &model).await.map_err(ApiError::bad_upstream)?;
    let not_found = || ApiError::not_found(format!("The model '{}' does not exist", shown(&model))).at("model");
    let entry = entry.ok_or_else(|| not_found().code("model_not_found"))?;
    Ok(json(entry.get().to_owned()))
}

fn json(text: impl Into<Body>) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

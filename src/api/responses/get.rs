//! `GET /v1/responses/{response_id}`: a response that a batch made.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use crate::api::caller::Caller;
use crate::api::extract::Id;
use crate::api::{ApiError, App, AppState};
use crate::domain::ids::RequestId;
use crate::domain::owner::Owner;
use crate::domain::result::response_made_for;
use crate::domain::row::shown;
use crate::storage::results::result_line;

/// Retrieves a response by its id in the output file of its batch, as soon as it is recorded there.
///
/// An extension of batchwright. It knows only responses that batchwright made: with tools, with checked answers or by
/// translation. A response that the upstream made in one call has the upstream's id.
#[utoipa::path(get, path = "/v1/responses/{response_id}", tag = "extensions",
    params(("response_id" = String, Path,)),
    responses(
        (status = 200, description = "The response, byte for byte as in the output file", body = Object),
        (status = 404, body = crate::api::error::ErrorBody)
    )
)]
pub(in crate::api) async fn get_response(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let body = body(&app, &owner, &id).await?;
    let body = body.ok_or_else(|| ApiError::not_found(format!("Response with id '{}' not found.", shown(&id))))?;
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn body(app: &App, owner: &Owner, id: &str) -> Result<Option<Bytes>, ApiError> {
    let Some(row) = RequestId::parse_response(id) else { return Ok(None) };
    let line = result_line(&*app.storage, &app.blobs, owner, row, app.clock.now()).await?;
    let Some(line) = line.filter(|line| line.succeeded) else { return Ok(None) };
    Ok(response_made_for(row, &line.text).map(|body| line.text.slice_ref(body.get().as_bytes())))
}

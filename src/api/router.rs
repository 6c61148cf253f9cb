//! The routes, and the layers around them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures::FutureExt as _;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use uuid::Uuid;

use super::access::guard;
use super::cors::cors;
use super::safe_headers::{always_tls, safe_headers};
use super::{ApiError, App, anthropic, batches, files, health, limits, models, openapi, responses, uploads};
use crate::domain::row::shown;

/// A JSON body is a few parameters; metadata is bounded to 16 pairs.
pub(super) const JSON_BODY_BYTES: usize = 1 << 20;
/// The longest URLs have a `custom_id` in them.
const URI_BYTES: usize = 32 << 10;

/// All routes of the API, and those of [`health_router`].
pub fn router(app: &Arc<App>) -> Router {
    let v1 = openai_routes();
    let routes = Router::new()
        .nest("/v1", v1.clone().merge(anthropic::routes()))
        // Azure's base paths, with and without a version. Its clients add `?api-version=`, which says nothing here.
        .nest("/openai/v1", v1.clone())
        .nest("/openai", v1)
        .route("/openapi.json", get(openapi::openapi_document))
        .merge(health_routes(app))
        .layer(DefaultBodyLimit::max(JSON_BODY_BYTES));
    guarded(routes, app)
}

/// The routes below the base URL of OpenAI's clients.
fn openai_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/files", post(files::create_file).layer(DefaultBodyLimit::disable()).get(files::list_files))
        .route("/files/{file_id}", get(files::get_file).delete(files::delete_file))
        .route("/files/{file_id}/content", get(files::file_content))
        .route("/uploads", post(uploads::create_upload))
        .route("/uploads/{upload_id}/parts", post(uploads::add_upload_part).layer(DefaultBodyLimit::disable()))
        .route("/uploads/{upload_id}/complete", post(uploads::complete_upload))
        .route("/uploads/{upload_id}/cancel", post(uploads::cancel_upload))
        .route("/batches", post(batches::create_batch).layer(DefaultBodyLimit::disable()).get(batches::list_batches))
        .route("/batches/{batch_id}", get(batches::get_batch))
        .route("/batches/{batch_id}/cancel", post(batches::cancel_batch))
        .route("/batches/{batch_id}/pause", post(batches::pause_batch))
        .route("/batches/{batch_id}/resume", post(batches::resume_batch))
        .route("/batches/{batch_id}/progress", get(batches::get_batch_progress))
        .route("/batches/{batch_id}/results", get(batches::list_batch_results))
        .route("/batches/{batch_id}/events", get(batches::list_batch_events))
        .route("/batches/{batch_id}/requests/{custom_id}", get(batches::get_batch_request))
        .route("/batches/{batch_id}/requests/{custom_id}/steps", get(batches::list_request_steps))
        .route("/responses/{response_id}", get(responses::get_response))
        .route("/limits", get(limits::get_limits))
        .route("/models", get(models::list_models))
        // A model's id may have slashes.
        .route("/models/{*model}", get(models::get_model))
}

/// The routes of a worker process, which does not answer clients: health and metrics.
pub fn health_router(app: &Arc<App>) -> Router {
    guarded(health_routes(app), app)
}

/// The route of a listener that has the metrics alone. It asks for no key: whoever may reach it may read them.
pub fn metrics_router(app: &Arc<App>) -> Router {
    let routes = Router::new().route("/metrics", get(health::metrics));
    with_stack(with_fallbacks(routes, app.clone()), app)
}

fn health_routes(app: &App) -> Router<Arc<App>> {
    let routes = Router::new().route("/healthz", get(health::healthz)).route("/readyz", get(health::readyz));
    if app.has_metrics_apart { routes } else { routes.route("/metrics", get(health::metrics)) }
}

/// Routes that only those may call who may.
fn guarded(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    let routes = with_fallbacks(routes, app.clone()).layer(from_fn_with_state(app.clone(), guard));
    with_stack(routes.layer(from_fn(anthropic::with_envelope)), app)
}

fn with_fallbacks(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    routes.method_not_allowed_fallback(method_not_allowed).fallback(unknown_route).with_state(app)
}

fn with_stack(routes: Router, app: &App) -> Router {
    let routes = routes.layer(from_fn(bounded_uri)).layer(from_fn(caught));
    let origins = &app.cors_allowed_origins;
    let routes = if origins.is_empty() { routes } else { routes.layer(cors(origins)) };
    with_request_ids(routes.layer(from_fn(safe_headers)).layer(from_fn_with_state(app.is_tls, always_tls)))
}

/// Gives each request an id, which its answer has too.
pub(crate) fn with_request_ids(routes: Router) -> Router {
    routes.layer(PropagateRequestIdLayer::x_request_id()).layer(SetRequestIdLayer::x_request_id(FreshRequestId))
}

async fn bounded_uri(request: Request, next: Next) -> Response {
    match request.uri().path_and_query() {
        Some(uri) if uri.as_str().len() > URI_BYTES => ApiError::uri_too_long().into_response(),
        _ => next.run(request).await,
    }
}

async fn unknown_route(request: Request) -> ApiError {
    let method = shown(request.method().as_str());
    ApiError::not_found(format!("Invalid URL ({method} {})", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> ApiError {
    let method = shown(request.method().as_str());
    ApiError::method_not_allowed(format!("Not allowed to {method} on {}.", request.uri().path()))
}

/// Answers for a handler that panics. The answer and the log have the request's id, by which one is found from the
/// other.
async fn caught(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).map(str::to_owned);
    let Ok(response) = AssertUnwindSafe(next.run(request)).catch_unwind().await else {
        let id = id.unwrap_or_default();
        tracing::error!(http_request_id = id, "a handler panicked");
        return ApiError::panicked(&id).into_response();
    };
    response
}

/// `req_` and 32 hexadecimal digits (contract §1.3).
#[derive(Clone)]
struct FreshRequestId;

impl MakeRequestId for FreshRequestId {
    fn make_request_id<B>(&mut self, _request: &axum::http::Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&fresh_request_id()).ok().map(RequestId::new)
    }
}

/// A new request id.
pub(super) fn fresh_request_id() -> String {
    format!("req_{}", Uuid::new_v4().simple())
}

//! The dashboard: pages for people, made on the server and kept fresh by polling.
//!
//! One file a page, with its template in `templates/`. A page reads and shows; what it changes, it changes by the same
//! calls as the API: files go in and out by the API's own handlers, at paths that get the session's cookie. `access`
//! decides who may see any of it, and `static/` has the style and the script.

mod access;
mod assets;
mod attempts;
mod batch;
mod batch_actions;
mod batches;
mod json_text;
mod overview;
mod page;
mod row;
mod sign_in;
mod submit;
mod upstreams;
mod view;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::{App, always_tls, create_file, file_content, with_request_ids};
use page::PageError;

/// The longest form that a page posts has a few names in it.
const FORM_BYTES: usize = 64 << 10;

/// The pages, behind the check of who asks for them.
pub fn router(app: Arc<App>) -> Router {
    let is_tls = app.is_tls;
    let pages = Router::new()
        .route("/", get(overview::overview))
        .route("/batches", get(batches::batches))
        .route("/batches/{batch_id}", get(batch::batch))
        .route("/batches/{batch_id}/cancel", post(batch_actions::cancel))
        .route("/batches/{batch_id}/pause", post(batch_actions::pause))
        .route("/batches/{batch_id}/resume", post(batch_actions::resume))
        .route("/batches/{batch_id}/retry", post(batch_actions::retry))
        .route("/batches/{batch_id}/rows", get(row::row_by_query))
        .route("/batches/{batch_id}/rows/{custom_id}", get(row::row_by_path))
        .route("/batches/{batch_id}/text", get(row::text))
        .route("/files", post(create_file).layer(DefaultBodyLimit::disable()))
        .route("/files/{file_id}/content", get(file_content))
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/submit", get(submit::choose))
        .route("/submit/{file_id}", get(submit::check).post(submit::create))
        .route("/upstreams", get(upstreams::upstreams))
        .route("/assets/{name}", get(assets::asset))
        .fallback(async || PageError::not_found("There is no such page."))
        .method_not_allowed_fallback(async || PageError::not_found("There is no such action."));
    let pages = Router::new()
        .route("/dashboard/", get(overview::overview))
        .nest("/dashboard", pages)
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .with_state(app.clone())
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(app, access::guard))
        .layer(from_fn_with_state(is_tls, always_tls));
    with_request_ids(pages)
}

fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a page panicked");
    PageError::internal().into_response()
}

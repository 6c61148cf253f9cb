//! The OpenAPI document, made from the handlers. `openapi/openapi.json` is a copy that a test keeps fresh.

use axum::Json;
use utoipa::OpenApi;

use super::{batches, files, health, models, responses, uploads};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "batchwright",
        description = "The OpenAI Files and Batch API in front of any OpenAI-compatible inference server."
    ),
    paths(
        files::create_file,
        files::list_files,
        files::get_file,
        files::delete_file,
        files::file_content,
        uploads::create_upload,
        uploads::add_upload_part,
        uploads::complete_upload,
        uploads::cancel_upload,
        batches::create_batch,
        batches::list_batches,
        batches::get_batch,
        batches::cancel_batch,
        batches::pause_batch,
        batches::resume_batch,
        batches::get_batch_progress,
        batches::list_batch_results,
        batches::list_batch_events,
        batches::get_batch_request,
        batches::list_request_steps,
        responses::get_response,
        models::list_models,
        models::get_model,
        health::healthz,
        health::readyz,
        health::metrics,
        openapi_document,
    )
)]
struct Document;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// The document as the file in the repository has it.
///
/// # Panics
/// Never: the document is plain data.
#[must_use]
pub fn document_text() -> String {
    let mut text = document().to_pretty_json().expect("plain data serialises");
    text.push('\n');
    text
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses(
    (status = 200, description = "The OpenAPI document")
))]
pub(super) async fn openapi_document() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}

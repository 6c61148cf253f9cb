//! The OpenAPI document, made from the handlers. `openapi/openapi.json` is a copy that a test keeps fresh.

use axum::Json;
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{anthropic, batches, files, health, limits, models, responses, uploads};

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
        anthropic::create_message_batch,
        anthropic::list_message_batches,
        anthropic::get_message_batch,
        anthropic::delete_message_batch,
        anthropic::cancel_message_batch,
        anthropic::list_message_batch_results,
        models::list_models,
        models::get_model,
        limits::get_limits,
        health::healthz,
        health::readyz,
        health::metrics,
        openapi_document,
    ),
    modifiers(&EveryError)
)]
struct Document;

/// Adds to each operation of the API what all have in common: any other answer is an error in the envelope.
struct EveryError;

impl Modify for EveryError {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let envelope = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        let error = ResponseBuilder::new().description("An error").content("application/json", envelope).build();
        for (_, item) in document.paths.paths.iter_mut().filter(|(path, _)| path.starts_with("/v1/")) {
            let operations = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), RefOr::T(error.clone()));
            }
        }
    }
}

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

//! Anthropic's Message Batches: `/v1/messages/batches`, one file for each operation, over the same engine.
//!
//! A message batch is a batch for `/v1/messages` whose input file is made of the requests of the call. Its id is that
//! of the batch with another prefix. Only batches that were made here are here, until they are deleted here; OpenAI's
//! API, which has the tools of operators, has them beside all others.

mod cancel;
mod create;
mod delete;
mod envelope;
mod get;
mod list;
mod origin;
mod requests;
mod result_lines;
mod results;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};

pub(super) use cancel::{__path_cancel_message_batch, cancel_message_batch};
pub(super) use create::{__path_create_message_batch, create_message_batch};
pub(super) use delete::{__path_delete_message_batch, delete_message_batch};
pub(super) use envelope::with_envelope;
pub(super) use get::{__path_get_message_batch, get_message_batch};
pub(super) use list::{__path_list_message_batches, list_message_batches};
pub(super) use results::{__path_list_message_batch_results, list_message_batch_results};

use super::{ApiError, App};
use crate::domain::batch::Batch;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::row::shown;

/// The prefix of a message batch's id.
const PREFIX: &str = "msgbatch_";
/// That of the batch's.
const BATCH_PREFIX: &str = "batch_";

/// All operations, below `/v1`.
pub(super) fn routes() -> Router<Arc<App>> {
    let create = post(create_message_batch).layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/messages/batches", create.get(list_message_batches))
        .route("/messages/batches/{message_batch_id}", get(get_message_batch).delete(delete_message_batch))
        .route("/messages/batches/{message_batch_id}/cancel", post(cancel_message_batch))
        .route("/messages/batches/{message_batch_id}/results", get(list_message_batch_results))
}

/// The id on the wire.
fn printed(id: BatchId) -> String {
    let batch = id.to_string();
    format!("{PREFIX}{}", batch.strip_prefix(BATCH_PREFIX).unwrap_or(&batch))
}

/// Reads an id of the wire.
fn parse_id(text: &str) -> Option<BatchId> {
    BatchId::parse(&format!("{BATCH_PREFIX}{}", text.strip_prefix(PREFIX)?))
}

/// The message batch that a path names.
async fn find(app: &App, owner: &Owner, id: &str) -> Result<Batch, ApiError> {
    let found = match parse_id(id) {
        Some(id) => app.storage.message_batch(owner, id).await?,
        None => None,
    };
    found.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("No message batch found with id '{}'.", shown(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_that_of_the_batch_with_another_prefix() {
        let id = BatchId::new();

        assert_eq!(parse_id(&printed(id)), Some(id));
        assert_eq!(printed(id), id.to_string().replace("batch_", "msgbatch_"));
        for other in [id.to_string(), printed(id).to_uppercase(), "msgbatch_".to_owned(), String::new()] {
            assert_eq!(parse_id(&other), None, "{other}");
        }
    }
}

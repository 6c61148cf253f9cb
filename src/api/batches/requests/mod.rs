//! `/v1/batches/{batch_id}/requests`: looking inside a batch. An extension: OpenAI's API has only whole files.

mod get;
mod steps;

pub(in crate::api) use get::{__path_get_batch_request, get_batch_request};
pub(in crate::api) use steps::{__path_list_request_steps, list_request_steps};

use super::{not_found, parse_id};
use crate::api::{ApiError, App};
use crate::domain::batch::Batch;
use crate::domain::owner::Owner;
use crate::domain::row::shown;
use crate::storage::rows::RowReader;

/// The request that a path names, with its batch.
struct NamedRequest {
    batch: Batch,
    reader: RowReader,
    row: u32,
}

/// Finds the request in a batch of an owner that a path names.
async fn find(app: &App, owner: &Owner, batch_id: &str, custom_id: &str) -> Result<NamedRequest, ApiError> {
    let batch = app.storage.batch(owner, parse_id(batch_id)?).await?.ok_or_else(|| not_found(batch_id))?;
    let no_request = || {
        let (custom_id, batch_id) = (shown(custom_id), batch.id);
        ApiError::not_found(format!("No request with custom_id '{custom_id}' in batch '{batch_id}'."))
    };
    let input = app.storage.batch_input(owner, batch.id).await?.ok_or_else(no_request)?;
    let reader = RowReader::new(app.blobs.clone(), input);
    let row = reader.row_named(custom_id).await?.ok_or_else(no_request)?;
    Ok(NamedRequest { batch, reader, row })
}

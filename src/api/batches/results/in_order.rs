//! All result lines of a batch that has ended, in the order of its input file.

use axum::body::Body;
use axum::response::Response;
use futures::TryStreamExt as _;

use super::log_break;
use super::merged::merged;
use super::page::response;
use super::reader::ResultReader;
use crate::api::ApiError;
use crate::domain::result_cursor::ResultCursor;
use crate::storage::result_files::ResultFile;

/// Answers with all lines: those of the batch, or merged with those of the batches whose rows it has run again.
pub(super) async fn answer(reader: ResultReader, merge: bool) -> Result<Response, ApiError> {
    let batch = reader.batch().await?;
    if !batch.status.is_terminal() {
        return Err(ApiError::invalid(format!(
            "The batch is '{}': its results are in the order of the input once it has ended. Wait for its end, or \
             leave 'order' out to read them as they come.",
            batch.status
        ))
        .at("order"));
    }
    let permit = reader.app.orders.clone().try_acquire_owned().map_err(|_| ApiError::too_many_orders())?;
    let files = reader.files(&batch).await?;
    let length = |is_read: bool, file| if is_read { files.file(file).len() } else { 0 };
    let end = ResultCursor {
        output: length(reader.kind.has_output(), ResultFile::Output),
        errors: length(reader.kind.has_errors(), ResultFile::Errors),
    };
    let id = batch.id;
    let ordered =
        if merge { merged(&reader, batch).await? } else { files.in_order(batch.counts.total, reader.kind).await? };
    let bytes = ordered.bytes();
    let lines = ordered.lines().inspect_err(move |error| {
        // Named here, so that it is held until the last line is sent.
        let _held = &permit;
        log_break(id, error);
    });
    Ok(response(Body::from_stream(lines), bytes, end, true))
}

//! `requests` of `POST /v1/batches` (an extension): a batch whose rows come with the request.

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::create;
use super::metadata::metadata;
use super::request_body::BatchRequestBody;
use crate::actions::{BatchOfRowsError, complete_rows};
use crate::api::json_body::canonical;
use crate::api::request_key::{key_reused, made_before, request_key};
use crate::api::{ApiError, App};
use crate::domain::batch::{Batch, BatchError};
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::request_key::RequestKey;
use crate::domain::row::{RowError, type_name};
use crate::domain::sparse_row::RowDefaults;
use crate::intake::{IntakeError, UploadRefusal, take_in};

/// The name of the input file.
const FILENAME: &str = "requests.jsonl";

/// Creates the batch. `parsed` is the text of the request.
pub(super) async fn create(
    app: &App,
    owner: &Owner,
    headers: &HeaderMap,
    parsed: &Map<String, Value>,
    request: &BatchRequestBody<'_>,
) -> Result<Batch, ApiError> {
    for other in ["input_file_id", "retry_of"] {
        if parsed.get(other).is_some_and(|value| !value.is_null()) {
            return Err(ApiError::invalid(format!("Give either 'requests' or '{other}', not both.")).at(other));
        }
    }
    let rows = match (&parsed["requests"], &request.rows) {
        (Value::Array(_), Some(rows)) => rows,
        (Value::Array(_), None) => {
            let message = "Invalid 'requests': empty array. Expected an array with at least one request.";
            return Err(ApiError::invalid(message).at("requests").code("empty_array"));
        }
        (other, _) => return Err(ApiError::wrong_type("requests", "an array", type_name(other))),
    };
    let model = match parsed.get("model") {
        None | Some(Value::Null) => None,
        Some(Value::String(model)) => Some(model.clone()),
        Some(other) => return Err(ApiError::wrong_type("model", "a string", type_name(other))),
    };
    let key = request_key(headers, "POST /v1/batches", &[canonical(parsed).as_bytes(), rows.hash.as_bytes()])?;
    // The key is that of the input file, in whose transaction the batch is created.
    let new = create::read(app, parsed, || metadata(parsed, &request.text), None, false)?;
    let defaults = RowDefaults { endpoint: new.endpoint, model };
    let lines = Box::pin(complete_rows(rows.part, &app.blobs, defaults));
    let taken =
        take_in(lines, &app.blobs, &rows.room.within(&app.intake), true).await.map_err(|error| match error {
            IntakeError::Stream(error) | IntakeError::Blob(error) => error.into(),
            IntakeError::TooLarge => {
                let most = app.intake.max_file_bytes;
                let message = format!("The requests are too large: they may have {most} bytes together.");
                rows.room.too_large(&app.intake, ApiError::invalid(message).at("requests"))
            }
        })?;
    match app.batch_of_rows(owner).create(taken, FILENAME, new, key.clone(), app.clock.now()).await {
        Ok((created, _)) => Ok(created),
        Err(BatchOfRowsError::KeyUsed) => {
            let before = made_earlier(app, owner, key.as_ref()).await?;
            before.ok_or_else(key_reused)
        }
        // A repetition returns the batch of the first request, whose rows may be those that leave no room.
        Err(BatchOfRowsError::BeyondLimit(exceeded)) => {
            let before = made_earlier(app, owner, key.as_ref()).await?;
            before.ok_or_else(|| ApiError::beyond_limit(&exceeded, owner))
        }
        Err(BatchOfRowsError::Rows(first, count)) => Err(refusal(&first, count)),
        Err(BatchOfRowsError::Refused(refused)) => Err(refusal(&unread(refused), 1)),
        Err(BatchOfRowsError::Blob(error)) => Err(error.into()),
        Err(BatchOfRowsError::Storage(error)) => Err(error.into()),
    }
}

/// What is wrong with rows that are no batch input file.
fn unread(refused: UploadRefusal) -> BatchError {
    let (message, line) = match refused {
        UploadRefusal::NotUtf8 => ("The requests are not UTF-8.".to_owned(), None),
        // The first row is not JSON.
        UploadRefusal::NotJsonLines | UploadRefusal::Empty => (RowError::InvalidJson.to_string(), Some(1)),
    };
    BatchError { code: "invalid_request".to_owned(), message, param: None, line }
}

/// The batch that an earlier request with the same key has made.
async fn made_earlier(app: &App, owner: &Owner, key: Option<&RequestKey>) -> Result<Option<Batch>, ApiError> {
    let Some(id) = made_before(app, owner, key).await? else { return Ok(None) };
    let Some(id) = BatchId::parse(&id) else { return Ok(None) };
    Ok(app.storage.batch(owner, id).await?)
}

/// The refusal of rows that would fail the batch, of which the first is named.
fn refusal(first: &BatchError, count: usize) -> ApiError {
    let message = first.message.replace("This line", "This request").replace("this line", "this request");
    let more = if count > 1 { format!(" {} more errors were found.", count - 1) } else { String::new() };
    let code = RowError::CODES.into_iter().find(|code| *code == first.code).unwrap_or("invalid_request");
    let Some(line) = first.line else {
        return ApiError::invalid(format!("{message}{more}")).at("requests").code(code);
    };
    let row = format!("requests[{}]", line - 1);
    let param = first.param.as_ref().map_or_else(|| row.clone(), |param| format!("{row}.{param}"));
    ApiError::invalid(format!("Invalid '{row}': {message}{more}")).at(&param).code(code)
}

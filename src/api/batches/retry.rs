//! `retry_of` of `POST /v1/batches` (an extension): a batch that runs rows of another one again.

use serde_json::{Map, Value};

use crate::actions::RetryBatchError;
use crate::api::json_body::object;
use crate::api::storage_room::StorageRoom;
use crate::api::{ApiError, App};
use crate::domain::batch::{Batch, NewBatch, RetryOptions};
use crate::domain::batch_endpoint::BatchEndpoint;
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;
use crate::domain::response::Fields;
use crate::domain::row::{shown, type_name};

/// The most bytes of `retry.codes` and `retry.body`, which the database keeps with the batch.
const MAX_OPTIONS: usize = 64 << 10;

/// The batch whose rows a body asks to run again, and which of them. What the body does not say of the new batch is
/// then added to it as the other batch has it. `text` is what the body was parsed from.
pub(super) async fn retried(
    app: &App,
    owner: &Owner,
    body: &mut Map<String, Value>,
    text: &[u8],
) -> Result<Option<(Batch, RetryOptions)>, ApiError> {
    let Some((param, id)) = retry_of(body)? else { return Ok(None) };
    let found = match BatchId::parse(&id) {
        Some(id) => app.storage.batch(owner, id).await?,
        None => None,
    };
    let old =
        found.ok_or_else(|| ApiError::not_found(format!("No batch found with id '{}'.", shown(&id))).at(param))?;
    let options = options(body, text)?;
    for (name, value) in [
        ("input_file_id", old.input_file_id.as_str()),
        ("endpoint", old.endpoint.as_str()),
        ("completion_window", old.completion_window.as_str()),
    ] {
        let given = body.get(name).filter(|given| !given.is_null());
        let is_same = |given: &str| {
            let is_alias = || name == "endpoint" && BatchEndpoint::named(given) == Some(old.endpoint);
            given == value || is_alias()
        };
        let is_other = given.and_then(Value::as_str).is_some_and(|given| !is_same(given));
        if is_other && name != "completion_window" {
            let message = format!("Invalid '{name}': leave it out, or give that of the batch in '{param}', '{value}'.");
            return Err(ApiError::invalid(message).at(name).code("invalid_value"));
        }
        if given.is_none() {
            body.insert(name.to_owned(), value.into());
        }
    }
    Ok(Some((old, options)))
}

/// Creates the batch.
pub(super) async fn create(app: &App, owner: &Owner, old: &Batch, new: NewBatch) -> Result<Batch, ApiError> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    // Its input is taken in like an upload.
    let _slot = app.uploads.begin(owner)?;
    let room = StorageRoom::of(app, owner).await?;
    let intake = room.within(&app.intake);
    match app.retrier(owner, old.id, &intake).create_batch(old, new, app.clock.now()).await {
        Err(error @ RetryBatchError::TooLarge) => Err(room.too_large(&app.intake, error.into())),
        created => Ok(created?),
    }
}

/// The path of the parameter that names the other batch, and its id.
fn retry_of(body: &Map<String, Value>) -> Result<Option<(&'static str, String)>, ApiError> {
    let named = |value: Option<&Value>, param: &'static str| match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some((param, id.clone()))),
        Some(other) => Err(ApiError::wrong_type(param, "a string", type_name(other))),
    };
    let in_metadata = object(body, "metadata")?.and_then(|pairs| pairs.get("retry_of"));
    let (member, in_metadata) = (named(body.get("retry_of"), "retry_of")?, named(in_metadata, "metadata.retry_of")?);
    if let (Some((_, one)), Some((_, other))) = (&member, &in_metadata)
        && one != other
    {
        let message = "Invalid 'metadata.retry_of': it names another batch than 'retry_of'. Give one of the two.";
        return Err(ApiError::invalid(message).at("metadata.retry_of").code("invalid_value"));
    }
    Ok(member.or(in_metadata))
}

fn options(body: &Map<String, Value>, text: &[u8]) -> Result<RetryOptions, ApiError> {
    let Some(given) = object(body, "retry")? else { return Ok(RetryOptions::default()) };
    let codes = match given.get("codes") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(codes)) if codes.is_empty() => {
            let message = "Invalid 'retry.codes': no codes. Leave it out to run all rows again that failed.";
            return Err(ApiError::invalid(message).at("retry.codes").code("invalid_value"));
        }
        Some(Value::Array(codes)) => codes.iter().map(code).collect::<Result<_, _>>()?,
        Some(other) => return Err(ApiError::wrong_type("retry.codes", "an array", type_name(other))),
    };
    let body = match given.get("body") {
        None | Some(Value::Null) => None,
        // As it was sent: a number that was parsed may be another one.
        Some(Value::Object(_)) => as_sent(text).expect("an object in an object, as it was parsed"),
        Some(other) => return Err(ApiError::wrong_type("retry.body", "an object", type_name(other))),
    };
    let bytes: usize = codes.iter().chain(&body).map(String::len).sum();
    if bytes > MAX_OPTIONS {
        let message = format!("Invalid 'retry': too long. It may have {MAX_OPTIONS} bytes, but has {bytes} instead.");
        return Err(ApiError::invalid(message).at("retry").code("string_above_max_length"));
    }
    Ok(RetryOptions { codes, body })
}

/// The members in the place of those of each body, as the client wrote them, but on one line as the rows are.
fn as_sent(body: &[u8]) -> serde_json::Result<Option<String>> {
    let retry: Fields = Fields::read(body)?.get("retry")?.unwrap_or_default();
    Ok(retry.raw("body").map(|members| members.get().replace(['\n', '\r'], " ")))
}

fn code(code: &Value) -> Result<String, ApiError> {
    let text = code.as_str().map(str::to_owned);
    text.ok_or_else(|| ApiError::wrong_type("retry.codes", "an array of strings", type_name(code)))
}

impl From<RetryBatchError> for ApiError {
    fn from(error: RetryBatchError) -> Self {
        match error {
            RetryBatchError::NotEnded { .. }
            | RetryBatchError::NoRows { .. }
            | RetryBatchError::NoRowsOfCodes { .. }
            | RetryBatchError::InputGone { .. }
            | RetryBatchError::ErrorsGone { .. }
            | RetryBatchError::TooLarge => Self::invalid(error.to_string()).at("retry_of"),
            RetryBatchError::File(error) => error.into(),
            RetryBatchError::Batch(error) => error.into(),
            RetryBatchError::Read(error) => error.into(),
        }
    }
}

//! `GET /v1/messages/batches`: newest first, in pages before and after an id.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::origin::PublicOrigin;
use super::parse_id;
use super::wire::MessageBatchObject;
use crate::api::caller::Caller;
use crate::api::page::{Query, param};
use crate::api::{ApiError, AppState, integer};
use crate::domain::ids::BatchId;
use crate::domain::page::Order;
use crate::domain::row::shown;

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: i64 = 1000;

/// A page of message batches.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageBatchList {
    data: Vec<MessageBatchObject>,
    /// Whether the list goes on in the direction that was asked for.
    has_more: bool,
    /// The id of the first of them.
    #[schema(required)]
    first_id: Option<String>,
    /// The id of the last of them.
    #[schema(required)]
    last_id: Option<String>,
}

/// Lists message batches.
#[utoipa::path(get, path = "/v1/messages/batches", tag = "message batches",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "1 to 1000, default 20"),
        ("after_id" = Option<String>, Query, pattern = "^(msgbatch_[0-9a-f]{32})?$",
            description = "Only those after this one, which are older"),
        ("before_id" = Option<String>, Query, pattern = "^(msgbatch_[0-9a-f]{32})?$",
            description = "Only those right before this one, which are newer")
    ),
    responses(
        (status = 200, body = MessageBatchList),
        (status = 400, body = super::envelope::MessagesErrorBody)
    )
)]
pub(in crate::api) async fn list_message_batches(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    origin: PublicOrigin,
    query: Query,
) -> Result<Json<MessageBatchList>, ApiError> {
    let limit = param(&query, "limit").map(|text| integer::in_text("limit", text, 1..=MAX_LIMIT)).transpose()?;
    let limit = limit.map_or(DEFAULT_LIMIT, |limit| u32::try_from(limit).expect("within bounds"));
    let (order, from) = match (cursor(&query, "after_id")?, cursor(&query, "before_id")?) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("Give one of 'after_id' and 'before_id', not both.").at("before_id"));
        }
        (None, Some(before)) => (Order::Ascending, Some(before)),
        (after, None) => (Order::Descending, after),
    };
    let mut page = app.storage.message_batches(&owner, order, from, limit).await?;
    if order == Order::Ascending {
        page.data.reverse();
    }
    let mut data = Vec::with_capacity(page.data.len());
    for batch in page.data {
        data.push(MessageBatchObject::read(&app, batch, &origin).await?);
    }
    let id = |batch: &MessageBatchObject| batch.id().to_owned();
    let (first_id, last_id) = (data.first().map(id), data.last().map(id));
    Ok(Json(MessageBatchList { has_more: page.has_more, first_id, last_id, data }))
}

/// The id in a parameter. It need not be there any more: a client may delete what it lists.
fn cursor(query: &Query, name: &str) -> Result<Option<BatchId>, ApiError> {
    let Some(text) = param(query, name) else { return Ok(None) };
    parse_id(text).map(Some).ok_or_else(|| {
        ApiError::invalid(format!("Invalid '{name}': '{}' is no id of a message batch.", shown(text))).at(name)
    })
}

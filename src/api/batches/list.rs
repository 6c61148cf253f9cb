//! `GET /v1/batches` (contract §8.6): newest first.

use axum::Json;
use axum::extract::State;

use super::BatchObject;
use crate::api::caller::Caller;
use crate::api::page::{self, List, Query};
use crate::api::{ApiError, AppState};
use crate::domain::ids::BatchId;
use crate::domain::page::{Order, Page, PageRequest};

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;

/// Lists batches.
#[utoipa::path(get, path = "/v1/batches", tag = "batches",
    params(
        ("limit" = Option<u32>, Query, minimum = 0, maximum = 100, description = "0 to 100, default 20"),
        ("after" = Option<String>, Query, description = "Only batches after this one")
    ),
    responses((status = 200, body = List<BatchObject>), (status = 400, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn list_batches(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    query: Query,
) -> Result<Json<List<BatchObject>>, ApiError> {
    let limit = page::limit(&query, DEFAULT_LIMIT, MAX_LIMIT)?;
    let batches = match page::param(&query, "after").map(BatchId::parse) {
        Some(None) => Page::empty(),
        after => {
            let page = PageRequest { after: after.flatten(), limit, order: Order::Descending };
            app.storage.batches(&owner, &page).await?
        }
    };
    let objects = Page { has_more: batches.has_more, data: batches.data.into_iter().map(BatchObject::from).collect() };
    Ok(Json(List::of(objects, |batch| batch.id.clone())))
}

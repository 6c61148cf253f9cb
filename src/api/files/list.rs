//! `GET /v1/files` (contract §3).

use axum::Json;
use axum::extract::State;

use super::FileObject;
use crate::api::caller::Caller;
use crate::api::page::{self, List, Query};
use crate::api::{ApiError, AppState};
use crate::domain::file::Purpose;
use crate::domain::ids::FileId;
use crate::domain::page::{Page, PageRequest};

const MAX_LIMIT: u32 = 10_000;

/// Lists files.
#[utoipa::path(get, path = "/v1/files", tag = "files",
    params(
        ("purpose" = Option<String>, Query, description = "Only files for this purpose"),
        ("limit" = Option<u32>, Query, minimum = 0, maximum = 10000, description = "0 to 10000, default 10000"),
        ("order" = Option<String>, Query, pattern = "^(asc|desc)?$",
            description = "`asc` or `desc` by creation time, default `desc`"),
        ("after" = Option<String>, Query, description = "Only files after this one")
    ),
    responses((status = 200, body = List<FileObject>), (status = 400, body = crate::api::error::ErrorBody))
)]
pub(in crate::api) async fn list_files(
    State(app): AppState,
    Caller { owner, .. }: Caller,
    query: Query,
) -> Result<Json<List<FileObject>>, ApiError> {
    let limit = page::limit(&query, MAX_LIMIT, MAX_LIMIT)?;
    let order = page::order(&query)?;
    let purpose = page::param(&query, "purpose").map(Purpose::parse);
    let after = page::param(&query, "after").map(FileId::parse);
    let files = match (purpose, after) {
        // A purpose that no file has, or a cursor that no file is: nothing matches.
        (Some(None), _) | (_, Some(None)) => Page::empty(),
        (purpose, after) => {
            let page = PageRequest { after: after.flatten(), limit, order };
            app.storage.files(&owner, &page, purpose.flatten(), app.clock.now()).await?
        }
    };
    let objects = Page { has_more: files.has_more, data: files.data.into_iter().map(FileObject::from).collect() };
    Ok(Json(List::of(objects, |file| file.id.clone())))
}

//! Reading the query of a list, and writing a page of it (contract §1.8).

use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiError, integer};
use crate::domain::page::{Order, Page};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// Always `list`.
    object: &'static str,
    /// The items.
    data: Vec<T>,
    /// The id of the first of them.
    #[schema(required)]
    first_id: Option<String>,
    /// The id of the last of them.
    #[schema(required)]
    last_id: Option<String>,
    /// Whether the list goes on.
    has_more: bool,
}

impl<T> List<T> {
    /// Writes a page; `id` names an item.
    pub(super) fn of(page: Page<T>, id: impl Fn(&T) -> String) -> Self {
        Self {
            object: "list",
            first_id: page.data.first().map(&id),
            last_id: page.data.last().map(&id),
            has_more: page.has_more,
            data: page.data,
        }
    }
}

/// The parameters of a list, as in the query. Unknown parameters are ignored.
pub(super) type Query = axum::extract::Query<Vec<(String, String)>>;

/// The value of a parameter: the first if it is given twice, none if it is empty.
pub(super) fn param<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// Reads `limit`: from 0 to `max`, `default` if it is not given.
pub(super) fn limit(query: &Query, default: u32, max: u32) -> Result<u32, ApiError> {
    let Some(text) = param(query, "limit") else { return Ok(default) };
    let limit = integer::in_text("limit", text, 0..=i64::from(max))?;
    Ok(u32::try_from(limit).expect("within bounds"))
}

/// Reads `order`: newest first if it is not given.
pub(super) fn order(query: &Query) -> Result<Order, ApiError> {
    match param(query, "order") {
        None | Some("desc") => Ok(Order::Descending),
        Some("asc") => Ok(Order::Ascending),
        Some(other) => Err(ApiError::wrong_value("order", other, &["asc", "desc"])),
    }
}

//! `/dashboard/batches`: the batches, those that have not ended first. What is shown is in the URL, so that a page
//! that is loaded again, or opened from a shared link, is the same.

use askama::Template;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::page::{PageError, page};
use super::view::{ACTIVE, BatchLine, Layout};
use crate::api::{App, AppState, Caller};
use crate::domain::batch::{Batch, BatchStatus};
use crate::domain::ids::BatchId;
use crate::domain::owner::Owner;

/// Batches of a page.
const PAGE: u32 = 20;
/// Batches that a search for a text looks at for one page: it has no index.
const SEARCHED: u32 = 1000;

const ENDED: [BatchStatus; 4] =
    [BatchStatus::Completed, BatchStatus::Failed, BatchStatus::Expired, BatchStatus::Cancelled];

/// What the URL says of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListFilter {
    status: String,
    text: String,
    after: String,
}

#[derive(Template)]
#[template(path = "batches.html")]
struct BatchesPage {
    layout: Layout,
    statuses: Vec<(&'static str, &'static str, bool)>,
    text: String,
    is_filtered: bool,
    is_first: bool,
    lines: Vec<BatchLine>,
    next: Option<String>,
    /// The search has not looked at all batches.
    searched: Option<u32>,
}

/// Where a page of the list begins: the list has two parts, each with the newest batch first.
#[derive(Debug, Clone, Copy)]
struct ListPlace {
    is_ended: bool,
    after: Option<BatchId>,
}

/// Some batches, and where the rest begins.
struct ListPart {
    batches: Vec<Batch>,
    next: Option<ListPlace>,
}

pub(super) async fn batches(
    State(app): AppState,
    caller: Caller,
    Query(filter): Query<ListFilter>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let text = filter.text.trim();
    let place =
        ListPlace::parse(&filter.after).ok_or_else(|| PageError::not_found("There is no such part of the list."))?;
    let mut searched = None;
    let found = if let Some(id) = BatchId::parse(text) {
        ListPart { batches: app.storage.batch(&caller.owner, id).await?.into_iter().collect(), next: None }
    } else if text.is_empty() {
        from(&app, &caller.owner, &filter.status, place, PAGE).await?
    } else {
        let mut found = from(&app, &caller.owner, &filter.status, place, SEARCHED).await?;
        searched = found.next.is_some().then_some(SEARCHED);
        found.batches.retain(|batch| has(batch, text));
        found.cut(PAGE)
    };
    let observed = app.observer(&caller.owner).observe_all(found.batches).await?;
    let lines = observed.iter().map(BatchLine::of).collect();
    let next = found.next.map(|next| filter.url(next));
    let is_filtered = !text.is_empty() || !filter.status.is_empty();
    let is_first = filter.after.is_empty();
    let layout = Layout::of("batches", "Batches").for_caller(&caller);
    let statuses = filter.statuses();
    let batches = BatchesPage { layout, statuses, text: text.to_owned(), is_filtered, is_first, lines, next, searched };
    page(&batches, &headers)
}

/// Up to `limit` batches from a place on, that have a status for which `word` stands.
async fn from(app: &App, owner: &Owner, word: &str, place: ListPlace, limit: u32) -> Result<ListPart, PageError> {
    let statuses = statuses_of(word).ok_or_else(|| PageError::not_found("There is no such status."))?;
    let mut batches = Vec::new();
    let active = (!place.is_ended).then_some((false, place.after));
    let ended = (true, place.after.filter(|_| place.is_ended));
    for (is_ended, after) in active.into_iter().chain([ended]) {
        let of_part: Vec<_> = statuses.iter().copied().filter(|status| status.is_terminal() == is_ended).collect();
        // One more than the page has shows that the list goes on.
        let missing = (limit + 1).saturating_sub(u32::try_from(batches.len()).unwrap_or(u32::MAX));
        batches.extend(app.storage.batches_with(owner, &of_part, after, missing).await?.data);
    }
    Ok(ListPart { batches, next: None }.cut(limit))
}

/// The statuses that a word of the URL stands for.
fn statuses_of(word: &str) -> Option<Vec<BatchStatus>> {
    match word {
        "" => Some(BatchStatus::ALL.to_vec()),
        "active" => Some(ACTIVE.to_vec()),
        "ended" => Some(ENDED.to_vec()),
        word => BatchStatus::parse(word).map(|status| vec![status]),
    }
}

/// Whether a batch has a text in what its owner calls it by.
fn has(batch: &Batch, text: &str) -> bool {
    let text = text.to_lowercase();
    let id = batch.id.to_string();
    let texts = [Some(&id), batch.model.as_ref(), batch.metadata.as_ref(), Some(&batch.input_file_id)];
    texts.into_iter().flatten().any(|known| known.to_lowercase().contains(&text))
}

impl ListPart {
    /// The first of the batches; the rest begins behind them.
    fn cut(mut self, limit: u32) -> Self {
        if self.batches.len() > limit as usize {
            self.batches.truncate(limit as usize);
            let place = |last: &Batch| ListPlace { is_ended: last.status.is_terminal(), after: Some(last.id) };
            self.next = self.batches.last().map(place);
        }
        self
    }
}

impl ListPlace {
    fn parse(text: &str) -> Option<Self> {
        let (part, after) = text.split_once('.').unwrap_or((text, ""));
        let after = if after.is_empty() { None } else { Some(BatchId::parse(after)?) };
        match part {
            "" | "active" => Some(Self { is_ended: false, after }),
            "ended" => Some(Self { is_ended: true, after }),
            _ => None,
        }
    }
}

impl ListFilter {
    /// The choices, with the one that is made.
    fn statuses(&self) -> Vec<(&'static str, &'static str, bool)> {
        let parts = [("", "any status"), ("active", "active"), ("ended", "ended")];
        let each = BatchStatus::ALL.map(|status| (status.as_str(), status.as_str()));
        parts.into_iter().chain(each).map(|(value, name)| (value, name, self.status == value)).collect()
    }

    fn url(&self, next: ListPlace) -> String {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let part = if next.is_ended { "ended" } else { "active" };
        let after = next.after.map_or_else(|| part.to_owned(), |after| format!("{part}.{after}"));
        format!("/dashboard/batches?status={}&text={}&after={after}", encoded(&self.status), encoded(self.text.trim()))
    }
}

//! `/dashboard/batches/{batch_id}`: one batch, how far it is and why, and what can be done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::batch_actions::{BatchAction, batch_actions};
use super::page::{PageError, page};
use super::view::{Bar, Layout, Moment, grouped, is_at_risk, percent, rate, row_url, size, spell};
use crate::actions::ObservedBatch;
use crate::api::{App, AppState, Caller};
use crate::domain::batch::{Batch, BatchError};
use crate::domain::cost::{Prices, amount};
use crate::domain::failures::FailureTally;
use crate::domain::file::File;
use crate::domain::ids::{BatchId, FileId};
use crate::domain::owner::Owner;
use crate::domain::response::Fields;
use crate::domain::row::shown;
use crate::domain::statistics::ThroughputPoint;
use crate::domain::time::Timestamp;
use crate::domain::usage::Usage;

/// Errors of the input that a page shows; the rest is told by its number.
const SHOWN_ERRORS: usize = 100;

#[derive(Template)]
#[template(path = "batch.html")]
struct BatchPage {
    layout: Layout,
    id: BatchId,
    status: &'static str,
    phase: &'static str,
    endpoint: &'static str,
    model: String,
    bar: Bar,
    rows: String,
    percent: String,
    facts: Vec<Fact>,
    reason: Option<Reason>,
    is_at_risk: bool,
    /// What can be done about it.
    actions: Vec<BatchAction>,
    errors: Vec<BatchError>,
    more_errors: usize,
    failures: Vec<Failure>,
    usage: Vec<(String, [String; 5])>,
    timeline: Vec<(&'static str, Moment)>,
    metadata: Vec<(String, String)>,
    files: Vec<BatchFile>,
    points: Vec<Point>,
}

/// One thing that is known of the batch, and what there is to say about it.
struct Fact {
    name: &'static str,
    value: String,
    moment: Option<Moment>,
    note: String,
    note_moment: Option<Moment>,
}

struct Reason {
    code: &'static str,
    message: String,
    since: Option<Moment>,
    until: Option<Moment>,
}

struct Failure {
    code: String,
    status: String,
    rows: String,
    custom_id: String,
    message: String,
    url: String,
}

struct BatchFile {
    name: &'static str,
    id: String,
    filename: String,
    size: String,
    /// Where it can be downloaded from; `None` if it is not there.
    url: Option<String>,
}

/// What was recorded in a part of the course.
struct Point {
    at: i64,
    moment: Moment,
    seconds: u32,
    rows: u64,
    tokens: u64,
    rows_shown: String,
    tokens_shown: String,
}

impl From<ThroughputPoint> for Point {
    fn from(ThroughputPoint { at, seconds, rows, tokens }: ThroughputPoint) -> Self {
        let (rows_shown, tokens_shown) = (grouped(rows), grouped(tokens));
        Self { at: at.seconds(), moment: Moment::at(at), seconds, rows, tokens, rows_shown, tokens_shown }
    }
}

pub(super) async fn batch(
    State(app): AppState,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let id = parse_id(&id)?;
    let observed = app.observer(&caller.owner).observe(id).await?.ok_or_else(no_batch)?;
    let files = files(&app, &caller.owner, &observed.batch).await?;
    page(&BatchPage::new(&observed, app.prices.as_ref(), files, &caller), &headers)
}

pub(super) fn parse_id(id: &str) -> Result<BatchId, PageError> {
    BatchId::parse(id).ok_or_else(no_batch)
}

pub(super) fn no_batch() -> PageError {
    PageError::not_found("There is no such batch.")
}

async fn files(app: &Arc<App>, owner: &Owner, batch: &Batch) -> Result<Vec<BatchFile>, PageError> {
    let now = app.clock.now();
    let mut files = Vec::new();
    let ids = [
        ("Input", FileId::parse(&batch.input_file_id)),
        ("Output", batch.output_file()),
        ("Errors", batch.error_file()),
    ];
    for (name, id) in ids {
        let file = match id {
            Some(id) => app.storage.file(owner, id, now).await?,
            None => None,
        };
        match file {
            Some(file) => files.push(BatchFile::there(name, &file)),
            None if name == "Input" => files.push(BatchFile::gone(name, shown(&batch.input_file_id))),
            None => files.extend(id.map(|id| BatchFile::gone(name, id.to_string()))),
        }
    }
    Ok(files)
}

impl BatchFile {
    fn there(name: &'static str, file: &File) -> Self {
        let url = Some(format!("/dashboard/files/{}/content", file.id));
        Self { name, id: file.id.to_string(), filename: file.filename.clone(), size: size(file.bytes), url }
    }

    fn gone(name: &'static str, id: String) -> Self {
        Self { name, id, filename: String::new(), size: String::new(), url: None }
    }
}

impl BatchPage {
    fn new(observed: &ObservedBatch, prices: Option<&Prices>, files: Vec<BatchFile>, caller: &Caller) -> Self {
        let ObservedBatch { batch, statistics, progress } = observed;
        let rows = progress.rows;
        let model = batch.model.clone().unwrap_or_default();
        Self {
            layout: Layout::of("batches", batch.id.to_string()).for_caller(caller),
            id: batch.id,
            status: batch.status.as_str(),
            phase: progress.phase.as_str(),
            endpoint: batch.endpoint.as_str(),
            model,
            bar: Bar::of(rows),
            rows: grouped(rows.total),
            percent: percent(rows),
            facts: facts(observed, prices),
            reason: progress.reason.as_ref().map(|reason| Reason {
                code: reason.code.as_str(),
                message: reason.message.clone(),
                since: reason.since.map(Moment::with_distance),
                until: reason.until.map(Moment::with_distance),
            }),
            is_at_risk: is_at_risk(observed),
            actions: batch_actions(batch),
            errors: batch.errors.iter().take(SHOWN_ERRORS).cloned().collect(),
            more_errors: batch.errors.len().saturating_sub(SHOWN_ERRORS),
            failures: statistics.failures().tallies().into_iter().map(|tally| Failure::of(batch.id, tally)).collect(),
            usage: usage(batch.usage, statistics.usage()),
            timeline: timeline(batch),
            metadata: metadata(batch),
            files,
            points: statistics.throughput().into_iter().map(Point::from).collect(),
        }
    }
}

fn plain(name: &'static str, value: String, note: String) -> Fact {
    Fact { name, value, moment: None, note, note_moment: None }
}

/// What the batch costs, if the settings say what its tokens do.
fn cost(observed: &ObservedBatch, prices: &Prices) -> Option<Fact> {
    let cost = prices.of_batch(observed.statistics.usage(), observed.batch.counts)?;
    let note = match cost.estimated_total.filter(|_| !observed.batch.status.is_terminal()) {
        Some(total) => format!("{} for all rows, at this rate", amount(total)),
        None => String::new(),
    };
    Some(plain("Cost", format!("{} {}", amount(cost.so_far), prices.currency), note))
}

fn facts(observed: &ObservedBatch, prices: Option<&Prices>) -> Vec<Fact> {
    let ObservedBatch { batch, progress, .. } = observed;
    let mut facts = Vec::new();
    if !batch.status.is_terminal() {
        let over = || match progress.rate.seconds {
            0 => "no row has a result yet".to_owned(),
            seconds => format!("in the last {seconds} s"),
        };
        facts.push(plain("Rows per second", rate(progress.rate.rows_per_second()), over()));
        facts.push(plain("Tokens per second", rate(progress.rate.tokens_per_second()), over()));
        facts.push(match progress.estimate {
            Some(estimate) => Fact {
                name: "Ends",
                value: String::new(),
                moment: Some(Moment::with_distance(estimate.ends_at)),
                note: "9 times of 10 before".to_owned(),
                note_moment: Some(Moment::at(estimate.ends_at_p90)),
            },
            None => plain("Ends", "not known".to_owned(), "known once rows have ended".to_owned()),
        });
    } else if let Some(ended) = ended(batch) {
        let took = format!("took {}", spell(ended.since(batch.created_at)));
        facts.push(Fact { moment: Some(Moment::with_distance(ended)), ..plain("Ended", String::new(), took) });
    }
    let met = match (batch.status.is_terminal(), progress.will_meet_window) {
        (false, Some(true)) => "will be met",
        (false, Some(false)) => "will be missed",
        (false, None) => "whether it will be met is not known",
        (true, Some(true)) => "was met",
        (true, Some(false)) => "was missed",
        (true, None) => "ended before",
    };
    let name = "Window closes";
    let note = format!("{} long, {met}", shown(&batch.completion_window));
    facts.push(Fact { moment: Some(Moment::with_distance(batch.expires_at)), ..plain(name, String::new(), note) });
    facts.extend(prices.and_then(|prices| cost(observed, prices)));
    facts
}

fn ended(batch: &Batch) -> Option<Timestamp> {
    batch.milestones.ended_at()
}

fn timeline(batch: &Batch) -> Vec<(&'static str, Moment)> {
    let milestones = &batch.milestones;
    let mut reached: Vec<(&'static str, Timestamp)> = [
        ("created", Some(batch.created_at)),
        ("in_progress", milestones.in_progress_at),
        ("finalizing", milestones.finalizing_at),
        ("cancelling", milestones.cancelling_at),
        ("completed", milestones.completed_at),
        ("failed", milestones.failed_at),
        ("expired", milestones.expired_at),
        ("cancelled", milestones.cancelled_at),
    ]
    .into_iter()
    .filter_map(|(status, at)| Some((status, at?)))
    .collect();
    reached.sort_by_key(|(_, at)| *at);
    reached.into_iter().map(|(status, at)| (status, Moment::at(at))).collect()
}

/// The pairs in their order.
fn metadata(batch: &Batch) -> Vec<(String, String)> {
    let Some(pairs) = batch.metadata.as_ref().and_then(|json| Fields::read(json.as_bytes()).ok()) else {
        return Vec::new();
    };
    let text = |json: &str| serde_json::from_str(json).unwrap_or_else(|_| json.to_owned());
    pairs.iter().map(|(key, value)| (key.to_string(), text(value.get()))).collect()
}

/// The tokens of the batch, and of each model if there are several.
fn usage(all: Usage, models: &BTreeMap<String, Usage>) -> Vec<(String, [String; 5])> {
    let line = |name: &str, usage: &Usage| {
        let Usage { input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens } = *usage;
        let counts = [input_tokens, cached_tokens, output_tokens, reasoning_tokens, total_tokens];
        (name.to_owned(), counts.map(grouped))
    };
    if all == Usage::default() {
        return Vec::new();
    }
    let models =
        if models.len() > 1 { models.iter().map(|(model, usage)| line(model, usage)).collect() } else { Vec::new() };
    std::iter::once(line("All rows", &all)).chain(models).collect()
}

impl Failure {
    fn of(batch: BatchId, FailureTally { kind, rows, sample }: FailureTally) -> Self {
        Self {
            code: kind.code,
            status: kind.status.map_or_else(|| "–".to_owned(), |status| status.to_string()),
            rows: grouped(rows),
            url: row_url(batch, &sample.custom_id),
            custom_id: sample.custom_id,
            message: sample.message,
        }
    }
}

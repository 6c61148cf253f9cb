//! `/dashboard`: what runs, what waits, what is in danger. Nothing here costs more because there are more rows.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::page::{PageError, page};
use super::upstreams::{Trouble, is_silent, troubles};
use super::view::{ACTIVE, BatchLine, Layout, Moment, grouped, is_at_risk, rate};
use crate::actions::ObservedBatch;
use crate::api::{AppState, Caller};
use crate::domain::activity::{DaemonActivity, DaemonReport};
use crate::domain::api_key::KeyScope;
use crate::domain::ids::BatchId;
use crate::domain::recent_course::RecentCourse;
use crate::domain::statistics::RecordedRate;

/// Batches that are listed, beside those at risk.
const LISTED: u32 = 10;
/// Batches whose windows are looked at: those that close first.
const CLOSING: u32 = 20;
/// Batches in progress whose rows are counted.
const COUNTED: u32 = 10_000;
/// Models whose troubles a project is told of.
const MODELS: u32 = 1000;
/// Points of a course that a rate is taken from: half a minute.
const RATE_POINTS: usize = 6;
const POINT_SECONDS: f64 = 5.0;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    layout: Layout,
    batches: String,
    running: String,
    waiting: String,
    oldest: Option<Moment>,
    at_risk: usize,
    rows_per_second: String,
    tokens_per_second: String,
    /// The time that these two are of.
    rates_over: &'static str,
    failed: String,
    completed: String,
    is_without_worker: bool,
    models: Vec<ModelLine>,
    troubles: Vec<Trouble>,
    lines: Vec<BatchLine>,
}

/// A model, and its last minutes.
struct ModelLine {
    model: String,
    running: String,
    limit: String,
    rows_per_second: String,
    tokens_per_second: String,
    /// The points of a line of 120 by 24, for the rows.
    course: String,
    label: String,
}

pub(super) async fn overview(State(app): AppState, caller: Caller, headers: HeaderMap) -> Result<Response, PageError> {
    let owner = &caller.owner;
    let (rows, reports, active, closing, models) = futures::try_join!(
        app.storage.rows_in_progress(owner, COUNTED),
        app.storage.upstream_reports(owner),
        app.storage.batches_with(owner, &ACTIVE, None, LISTED),
        app.storage.batches_closing_first(owner, CLOSING),
        app.storage.models_in_progress(owner, MODELS),
    )?;
    let listed: Vec<BatchId> = active.data.iter().map(|batch| batch.id).collect();
    let mut batches = active.data;
    batches.extend(closing.into_iter().filter(|batch| !listed.contains(&batch.id)));
    let observed = app.observer(owner).observe_all(batches).await?;
    let at_risk = observed.iter().filter(|observed| is_at_risk(observed)).count();
    let mut listed: Vec<&ObservedBatch> =
        observed.iter().filter(|observed| is_at_risk(observed) || listed.contains(&observed.batch.id)).collect();
    // Those in danger stand first, and then the newest.
    listed.sort_by_key(|observed| (!is_at_risk(observed), Reverse(observed.batch.id)));
    let mut living: Vec<DaemonReport> = reports.into_iter().filter(|report| !is_silent(report)).collect();
    let is_operator = caller.may(KeyScope::Admin);
    if !is_operator {
        for report in &mut living {
            keep_models(&mut report.activity, &models);
        }
    }
    let running: u64 = living.iter().flat_map(|report| &report.activity.batches).map(|batch| batch.running).sum();
    let owed = rows.counts.owed();
    let more = if rows.batches < u64::from(COUNTED) { "" } else { "+" };
    let (rows_per_second, tokens_per_second) = if is_operator { rates_of_all(&living) } else { rates_of(&observed) };
    let overview = Overview {
        layout: Layout::of("overview", "Overview").for_caller(&caller),
        batches: format!("{}{more}", grouped(rows.batches)),
        running: grouped(running),
        waiting: format!("{}{more}", grouped(owed.saturating_sub(running))),
        oldest: rows.oldest_created_at.map(Moment::with_distance),
        at_risk,
        rows_per_second,
        tokens_per_second,
        rates_over: if is_operator { "30 s" } else { "minute" },
        failed: grouped(rows.counts.failed),
        completed: grouped(rows.counts.completed),
        is_without_worker: living.is_empty(),
        models: if is_operator { model_lines(&living) } else { Vec::new() },
        troubles: troubles(&living),
        lines: listed.into_iter().map(BatchLine::of).collect(),
    };
    page(&overview, &headers)
}

/// Leaves those models that a project's own rows name: the names of others are texts of other projects.
fn keep_models(activity: &mut DaemonActivity, models: &[String]) {
    activity.models.retain(|activity| models.contains(&activity.model));
    activity.unserved.retain(|model| models.contains(model));
}

/// The rates of all projects, as the daemons tell them.
fn rates_of_all(living: &[DaemonReport]) -> (String, String) {
    let models = living.iter().flat_map(|report| &report.activity.models);
    rates(&RecentCourse::sum(models.map(|model| &model.recent)))
}

/// The rates of batches, as they were recorded.
fn rates_of(observed: &[ObservedBatch]) -> (String, String) {
    let of_each = observed.iter().map(|observed| observed.progress.rate);
    let add = |sum: (f64, f64), of: RecordedRate| (sum.0 + of.rows_per_second(), sum.1 + of.tokens_per_second());
    let (rows, tokens) = of_each.fold((0.0, 0.0), add);
    (rate(rows), rate(tokens))
}

/// What a model does at all daemons.
#[derive(Default)]
struct ModelSum<'a> {
    running: u64,
    limit: u64,
    courses: Vec<&'a RecentCourse>,
}

fn model_lines(living: &[DaemonReport]) -> Vec<ModelLine> {
    let mut models: BTreeMap<&str, ModelSum<'_>> = BTreeMap::new();
    for model in living.iter().flat_map(|report| &report.activity.models) {
        let sum = models.entry(&model.model).or_default();
        sum.running += model.running;
        sum.limit += model.upstreams.iter().map(|upstream| upstream.limit).sum::<u64>();
        sum.courses.push(&model.recent);
    }
    let mut models: Vec<_> = models.into_iter().collect();
    models.sort_by_key(|(_, sum)| Reverse(sum.running));
    let line = |(model, sum): (&str, ModelSum<'_>)| {
        let course = RecentCourse::sum(sum.courses);
        let (rows_per_second, tokens_per_second) = rates(&course);
        let most = course.iter().map(|point| point.0).max().unwrap_or(0);
        ModelLine {
            model: model.to_owned(),
            running: grouped(sum.running),
            limit: grouped(sum.limit),
            label: format!("Rows of the last 5 minutes, at most {} in 5 seconds", grouped(most)),
            rows_per_second,
            tokens_per_second,
            course: polyline(&course, most),
        }
    };
    models.into_iter().map(line).collect()
}

/// Rows and tokens in a second, lately.
#[expect(clippy::cast_precision_loss, reason = "counts of half a minute")]
fn rates(course: &[(u64, u64)]) -> (String, String) {
    let last = &course[course.len().saturating_sub(RATE_POINTS)..];
    let seconds = POINT_SECONDS * last.len().max(1) as f64;
    let [rows, tokens] = last.iter().fold([0, 0], |[rows, tokens], point| [rows + point.0, tokens + point.1]);
    (rate(rows as f64 / seconds), rate(tokens as f64 / seconds))
}

/// The points of a line of 120 by 24 with a unit of room above and below.
#[expect(clippy::cast_precision_loss, reason = "places on the screen")]
fn polyline(course: &[(u64, u64)], most: u64) -> String {
    let step = 120.0 / (course.len().saturating_sub(1).max(1)) as f64;
    let point = |(no, (rows, _)): (usize, &(u64, u64))| {
        let height = if most == 0 { 0.0 } else { *rows as f64 / most as f64 };
        format!("{:.1},{:.1}", no as f64 * step, 23.0 - height * 22.0)
    };
    course.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
}

//! `/dashboard/upstreams`: the daemons, and the state of each upstream as their calls have shown it.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::page::{PageError, page};
use super::view::{Layout, Moment, grouped, rate, spell};
use crate::api::{AppState, Caller};
use crate::domain::activity::{CallLimit, DaemonReport, ModelActivity, UpstreamActivity, UpstreamState};
use crate::domain::api_key::KeyScope;
use crate::domain::ids::DaemonId;

/// A daemon whose last heartbeat is older is not counted on: it beats every 800 ms.
const SILENT: Duration = Duration::from_secs(5);

#[derive(Template)]
#[template(path = "upstreams.html")]
struct UpstreamsPage {
    layout: Layout,
    daemons: Vec<DaemonCard>,
}

struct DaemonCard {
    id: DaemonId,
    age: String,
    is_silent: bool,
    unserved: Vec<String>,
    routes: Vec<RouteLine>,
}

/// A model at an upstream.
struct RouteLine {
    model: String,
    upstream: String,
    running: String,
    limit: String,
    limited_by: &'static str,
    seconds_per_row: String,
    state: StateLine,
}

/// Whether an upstream takes calls.
struct StateLine {
    name: &'static str,
    why: String,
    since: Option<Moment>,
    until: Option<Moment>,
}

/// An upstream that takes no calls of a model.
pub(super) struct Trouble {
    pub(super) upstream: String,
    pub(super) models: String,
    pub(super) name: &'static str,
    pub(super) why: String,
    pub(super) since: Option<Moment>,
    pub(super) until: Option<Moment>,
}

/// For operators: it tells of the models, the load and the errors of all projects.
pub(super) async fn upstreams(State(app): AppState, caller: Caller, headers: HeaderMap) -> Result<Response, PageError> {
    if !caller.may(KeyScope::Admin) {
        let message = "This page is about all projects, for which your key does not have the scope 'admin'.";
        return Err(PageError::new(StatusCode::FORBIDDEN, message));
    }
    let reports = app.storage.upstream_reports(&caller.owner).await?;
    let daemons = reports.iter().map(DaemonCard::of).collect();
    let layout = Layout::of("upstreams", "Upstreams and workers").for_caller(&caller);
    page(&UpstreamsPage { layout, daemons }, &headers)
}

pub(super) fn is_silent(report: &DaemonReport) -> bool {
    report.age >= SILENT
}

/// The upstreams in trouble, each once for all models that have the same, and the models that none has.
pub(super) fn troubles(living: &[DaemonReport]) -> Vec<Trouble> {
    let mut troubles: Vec<Trouble> = Vec::new();
    for model in living.iter().flat_map(|report| &report.activity.models) {
        let in_trouble = model.upstreams.iter().filter(|upstream| upstream.state != UpstreamState::Open);
        for upstream in in_trouble {
            let StateLine { name, why, since, until } = StateLine::of(&upstream.state);
            let known = troubles.iter_mut().find(|known| known.upstream == upstream.upstream && known.why == why);
            match known {
                Some(known) if known.models.split(", ").any(|named| named == model.model) => {}
                Some(known) => known.models = format!("{}, {}", known.models, model.model),
                None => {
                    let (upstream, models) = (upstream.upstream.clone(), model.model.clone());
                    troubles.push(Trouble { upstream, models, name, why, since, until });
                }
            }
        }
    }
    let mut unserved: Vec<&str> =
        living.iter().flat_map(|report| &report.activity.unserved).map(String::as_str).collect();
    unserved.sort_unstable();
    unserved.dedup();
    if !unserved.is_empty() {
        let why = "No upstream has the model: its rows wait until one has.".to_owned();
        let (upstream, models) = ("–".to_owned(), unserved.join(", "));
        troubles.push(Trouble { upstream, models, name: "missing", why, since: None, until: None });
    }
    troubles
}

impl DaemonCard {
    fn of(report: &DaemonReport) -> Self {
        let of_model = |model: &ModelActivity| {
            let seconds =
                model.seconds_per_row.map_or_else(|| "–".to_owned(), |seconds| format!("{} s", rate(seconds)));
            let line = |upstream: &UpstreamActivity| RouteLine::of(model, upstream, seconds.clone());
            model.upstreams.iter().map(line).collect::<Vec<_>>()
        };
        Self {
            id: report.daemon,
            age: spell(report.age),
            is_silent: is_silent(report),
            unserved: report.activity.unserved.clone(),
            routes: report.activity.models.iter().flat_map(of_model).collect(),
        }
    }
}

impl RouteLine {
    fn of(model: &ModelActivity, upstream: &UpstreamActivity, seconds_per_row: String) -> Self {
        let limited_by = match upstream.limited_by {
            CallLimit::Searching => "not known yet how many it takes",
            CallLimit::Throughput => "more bring no more throughput",
            CallLimit::Refusals => "the server refuses more",
            CallLimit::Settings => "the settings allow no more",
        };
        Self {
            model: model.model.clone(),
            upstream: upstream.upstream.clone(),
            running: grouped(upstream.running),
            limit: grouped(upstream.limit),
            limited_by,
            seconds_per_row,
            state: StateLine::of(&upstream.state),
        }
    }
}

impl StateLine {
    fn of(state: &UpstreamState) -> Self {
        let none = Self { name: "open", why: String::new(), since: None, until: None };
        match state {
            UpstreamState::Open => none,
            UpstreamState::Limited { until, why } => {
                Self { name: "limited", why: why.clone(), until: until.map(Moment::with_distance), ..none }
            }
            UpstreamState::Down { since, why } => {
                Self { name: "down", why: why.clone(), since: since.map(Moment::with_distance), ..none }
            }
            UpstreamState::Resting { hours } => {
                Self { name: "resting", why: format!("It rests outside {hours}."), ..none }
            }
        }
    }
}

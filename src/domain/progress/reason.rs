//! Why a batch does not go faster: the one thing that its owner, or the operator, would have to know or change.

use std::time::Duration;

use super::{Efforts, Phase, ProgressFacts, RowCounts};
use crate::domain::activity::{CallLimit, ModelActivity, UpstreamActivity, UpstreamState};
use crate::domain::pause::Pause;
use crate::domain::text_enum::text_enum;
use crate::domain::time::Timestamp;

/// The last rows are told of once they have taken so long, and several times as long as rows usually take.
const LONG_TAIL: Duration = Duration::from_secs(30);
const LONG_TAIL_TIMES: f64 = 3.0;
/// Models that are named in a sentence.
const NAMED: usize = 3;

text_enum! {
    /// Why a batch does not go faster.
    pub enum ReasonCode {
        /// Its input is being checked.
        Validating = "validating",
        /// It waits until its project has room for it.
        ProjectLimit = "project_limit",
        /// It is paused.
        Paused = "paused",
        /// No process runs rows.
        NoWorker = "no_worker",
        /// No upstream has its model.
        NoUpstream = "no_upstream",
        /// The upstream is not there, or takes no rows at all.
        UpstreamDown = "upstream_down",
        /// The upstream limits calls in time.
        RateLimited = "rate_limited",
        /// The calls that the upstream takes are those of other batches.
        BehindOtherBatches = "behind_other_batches",
        /// Rows wait for another attempt.
        Retrying = "retrying",
        /// As many calls are under way as the upstream takes.
        WaitingForCapacity = "waiting_for_capacity",
        /// A few rows take long, and no other is left.
        Tail = "tail",
        /// The remaining lines are being written.
        Finalizing = "finalizing",
    }
}

/// Why a batch does not go faster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressReason {
    /// The reason, for programs.
    pub code: ReasonCode,
    /// The same as a sentence.
    pub message: String,
    /// Since when it holds, if that is known.
    pub since: Option<Timestamp>,
    /// When it will be over, if that is known.
    pub until: Option<Timestamp>,
}

impl ProgressReason {
    fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), since: None, until: None }
    }
}

pub(super) fn reason(
    facts: &ProgressFacts<'_>,
    efforts: &Efforts<'_>,
    rows: RowCounts,
    phase: Phase,
) -> Option<ProgressReason> {
    let no_worker = || {
        let message = "No worker is running: start one (batchwright serve), and the batch goes on.";
        ProgressReason::new(ReasonCode::NoWorker, message)
    };
    if let Some(Pause { since, cause }) = &facts.batch.pause {
        let message = format!("{} Resume it, and it goes on.", cause.message());
        return Some(ProgressReason { since: Some(*since), ..ProgressReason::new(ReasonCode::Paused, message) });
    }
    match phase {
        Phase::Ended => None,
        _ if !efforts.has_daemon => Some(no_worker()),
        Phase::Validating => Some(not_admitted(facts)),
        Phase::Finalizing => {
            let message = "No more rows start: calls under way end, and the last lines are being written.";
            Some(ProgressReason::new(ReasonCode::Finalizing, message))
        }
        Phase::Waiting | Phase::Running | Phase::Paused => of_open_batch(facts, efforts, rows),
    }
}

/// The batch waits for room in its project, or its input is being checked.
fn not_admitted(facts: &ProgressFacts<'_>) -> ProgressReason {
    let id = facts.batch.id;
    match facts.queue {
        Some(queue) if queue.first == id => {
            ProgressReason::new(ReasonCode::ProjectLimit, queue.exceeded.why_it_waits())
        }
        Some(queue) if queue.first < id => {
            ProgressReason::new(ReasonCode::ProjectLimit, queue.exceeded.why_later_ones_wait())
        }
        _ => ProgressReason::new(ReasonCode::Validating, "The input file is being checked."),
    }
}

fn of_open_batch(facts: &ProgressFacts<'_>, efforts: &Efforts<'_>, rows: RowCounts) -> Option<ProgressReason> {
    no_upstream(facts, efforts)
        .or_else(|| unavailable(efforts))
        .or_else(|| tail(facts, efforts, rows))
        .or_else(|| retrying(efforts, rows))
        .or_else(|| if rows.waiting > 0 { busy(efforts, rows) } else { None })
}

/// None of the models that are left has an upstream.
fn no_upstream(facts: &ProgressFacts<'_>, efforts: &Efforts<'_>) -> Option<ProgressReason> {
    let unserved = &efforts.unserved;
    if unserved.is_empty() || unserved.len() < facts.models.len() {
        return None;
    }
    let message = format!("No upstream has {}: its rows wait until one has.", named(unserved));
    Some(ProgressReason::new(ReasonCode::NoUpstream, message))
}

/// No upstream of any model of the batch takes a call now.
fn unavailable(efforts: &Efforts<'_>) -> Option<ProgressReason> {
    let upstreams: Vec<&UpstreamActivity> = efforts.models.iter().flat_map(|model| &model.upstreams).collect();
    if upstreams.is_empty() || upstreams.iter().any(|upstream| upstream.state == UpstreamState::Open) {
        return None;
    }
    // Whichever may open first decides.
    upstreams.into_iter().map(of_state).min_by_key(|reason| (reason.code != ReasonCode::RateLimited, reason.until))
}

fn of_state(upstream: &UpstreamActivity) -> ProgressReason {
    let name = &upstream.upstream;
    match &upstream.state {
        UpstreamState::Limited { until, why } => {
            let message = format!("The upstream '{name}' limits calls in time: {why}");
            ProgressReason { until: *until, ..ProgressReason::new(ReasonCode::RateLimited, message) }
        }
        UpstreamState::Down { since, why } => {
            let message = format!("The upstream '{name}' takes no calls; rows wait without using up attempts: {why}");
            ProgressReason { since: *since, ..ProgressReason::new(ReasonCode::UpstreamDown, message) }
        }
        UpstreamState::Resting { hours } => {
            let message = format!("The upstream '{name}' is outside its hours, {hours}.");
            ProgressReason::new(ReasonCode::UpstreamDown, message)
        }
        UpstreamState::Open => ProgressReason::new(ReasonCode::WaitingForCapacity, ""),
    }
}

/// Nothing is left but a few rows that take long.
fn tail(facts: &ProgressFacts<'_>, efforts: &Efforts<'_>, rows: RowCounts) -> Option<ProgressReason> {
    let begun = efforts.last_begun.filter(|_| rows.waiting == 0 && rows.retrying == 0 && rows.running > 0)?;
    let took = facts.now.since(begun);
    let usual = efforts.models.iter().filter_map(|model| model.seconds_per_row).fold(0.0, f64::max);
    if took < LONG_TAIL || took.as_secs_f64() < usual * LONG_TAIL_TIMES {
        return None;
    }
    let message = format!("{} left, under way for {} or longer.", rows_of(rows.running), in_words(took));
    Some(ProgressReason { since: Some(begun), ..ProgressReason::new(ReasonCode::Tail, message) })
}

/// More rows wait for another attempt than run, or nothing else is left.
fn retrying(efforts: &Efforts<'_>, rows: RowCounts) -> Option<ProgressReason> {
    if rows.retrying == 0 || rows.retrying <= rows.running {
        return None;
    }
    let why = efforts.retrying_for.map(|code| format!(", most of them after {code}")).unwrap_or_default();
    let message = format!("{} waiting for another attempt{why}.", rows_of(rows.retrying));
    Some(ProgressReason::new(ReasonCode::Retrying, message))
}

/// As many calls are under way as the upstreams take.
fn busy(efforts: &Efforts<'_>, rows: RowCounts) -> Option<ProgressReason> {
    let running: u64 = efforts.models.iter().map(|model| model.running).sum();
    let others = running.saturating_sub(rows.running);
    let batches = efforts.models.iter().map(|model| model.batches).max().unwrap_or(0);
    let upstreams = || efforts.models.iter().flat_map(|model| &model.upstreams);
    let limit: u64 = upstreams().map(|upstream| upstream.limit).sum();
    if others > rows.running {
        let message = format!("{others} of the {running} calls under way are of other batches of its model.");
        return Some(ProgressReason::new(ReasonCode::BehindOtherBatches, message));
    }
    // A model that has not answered yet leaves an eighth of the calls to others.
    if running < limit.saturating_sub((limit / 8).max(1)).max(1) || batches == 0 {
        return None;
    }
    let tightest = efforts.models.iter().max_by_key(|model| model.running).and_then(|model| largest(model))?;
    let message = match tightest.limited_by {
        CallLimit::Searching => format!("{running} calls are under way. More follow as the upstream answers."),
        CallLimit::Throughput => {
            format!("{running} calls are under way. More at once would not be answered sooner.")
        }
        CallLimit::Refusals => format!("{running} calls are under way. The upstream refuses more at once."),
        CallLimit::Settings => {
            format!("{running} calls are under way, as many as the settings allow (--max-concurrency).")
        }
    };
    Some(ProgressReason::new(ReasonCode::WaitingForCapacity, message))
}

fn largest(model: &ModelActivity) -> Option<&UpstreamActivity> {
    model.upstreams.iter().max_by_key(|upstream| upstream.running)
}

fn named(models: &[&str]) -> String {
    let mut names: Vec<_> = models.iter().take(NAMED).map(|model| format!("the model '{model}'")).collect();
    if models.len() > NAMED {
        names.push(format!("{} others", models.len() - NAMED));
    }
    names.join(", ")
}

fn rows_of(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

/// A time in its largest unit.
fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

//! One inference server: what calls it, how many calls it may have under way, and what its answers have shown of it.

mod answers;
mod queue_metrics;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::admission::{
    Admission, AdmittedCall, AdmittedModel, CallHistory, ConcurrencyController, GivenRates, Judgement, RowSigns, judge,
    shows_no_endpoint,
};
use super::merged::MergedCalls;
use super::responses_api::ResponsesApi;
use super::served_models::{ServedModels, listed_models};
use super::server_client::ServerClient;
use super::server_settings::ServerSettings;
use super::server_software::ServerSoftware;
use super::streamed::Streaming;
use super::{Call, HttpClient, ReqwestHttpClient, RowHeaders, UpstreamError};
use crate::config::{ConcurrencyControl, ExhaustedQuota};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::{BodyReading, HttpResponse};
use crate::domain::run_window::RunWindow;
use crate::domain::time::Clock;
use crate::sync::lock;
use crate::telemetry::metrics;

/// Whoever follows a server looks again after so long at the latest: time alone can make a model silent.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How long a server may take to answer with its list of models.
const LIST_PATIENCE: Duration = Duration::from_secs(10);

/// Gives each server a number of its own.
static NUMBERS: AtomicU32 = AtomicU32::new(1);

/// An inference server.
pub struct Server {
    no: u32,
    name: Arc<str>,
    client: ServerClient,
    models: ServedModels,
    weight: f64,
    max_concurrency: usize,
    is_escalation: bool,
    run_window: Option<RunWindow>,
    /// Whether the time is outside the run window.
    is_resting: AtomicBool,
    clock: Clock,
    /// The registry's limit, if that is lower than its own: the most calls of one model.
    ceiling: Arc<AtomicUsize>,
    /// Rows of all models that are under way.
    rows: Arc<AtomicUsize>,
    concurrency: ConcurrencyControl,
    rates: GivenRates,
    /// The admission of each model that is in use.
    admissions: Mutex<HashMap<Arc<str>, Weak<Admission>>>,
    /// Told when an admission has changed.
    changed: Arc<Notify>,
    responses_api: Arc<ResponsesApi>,
    software: ServerSoftware,
    streaming: Streaming,
    exhausted_quota: ExhaustedQuota,
    pub(super) body_priority: Option<i64>,
    reads_metrics: bool,
    merged_calls: MergedCalls,
}

impl Server {
    /// A server that is called over HTTP. No call may be under way until
    /// [`Registry::set_limit`](super::Registry::set_limit) says how many.
    #[must_use]
    pub fn over_http(client: ReqwestHttpClient, settings: ServerSettings, clock: Clock) -> Self {
        Self::new(ServerClient::Http(client), settings, clock)
    }

    /// The same for whatever the client of an embedding program calls.
    #[must_use]
    pub fn embedded(client: impl HttpClient, settings: ServerSettings, clock: Clock) -> Self {
        Self::new(ServerClient::Embedded(Box::new(client)), settings, clock)
    }

    fn new(client: ServerClient, settings: ServerSettings, clock: Clock) -> Self {
        Self {
            no: NUMBERS.fetch_add(1, Relaxed),
            name: settings.name,
            client,
            models: ServedModels::new(settings.models, settings.aliases),
            weight: settings.weight,
            max_concurrency: settings.max_concurrency.unwrap_or(usize::MAX),
            is_escalation: settings.is_escalation,
            run_window: settings.run_window,
            is_resting: AtomicBool::new(settings.run_window.is_some_and(|window| !window.contains(clock.now()))),
            clock: clock.clone(),
            ceiling: Arc::default(),
            rows: Arc::default(),
            concurrency: settings.concurrency,
            rates: settings.rates,
            admissions: Mutex::default(),
            changed: Arc::default(),
            responses_api: Arc::new(ResponsesApi::new(settings.dialect, clock.clone())),
            software: ServerSoftware::new(clock),
            streaming: Streaming::new(settings.stream),
            exhausted_quota: settings.exhausted_quota,
            body_priority: settings.body_priority,
            reads_metrics: settings.reads_metrics,
            merged_calls: MergedCalls::new(settings.merged_embeddings),
        }
    }

    /// The same server in place of another, whose rows under way count here too.
    #[must_use]
    pub fn in_place_of(self, other: &Self) -> Self {
        Self { rows: other.rows.clone(), ..self }
    }

    /// Its name in logs, metrics and warnings.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Tells it from every other server of this process.
    pub(super) fn no(&self) -> u32 {
        self.no
    }

    pub(super) fn weight(&self) -> f64 {
        self.weight
    }

    pub(super) fn models_served(&self) -> &ServedModels {
        &self.models
    }

    /// Why it did not tell the last time which models it has, if its list says that.
    #[must_use]
    pub fn models_untold(&self) -> Option<String> {
        self.models.failure()
    }

    /// Whether it may have another row of any model under way.
    pub(super) fn has_room(&self) -> bool {
        self.rows() < self.max_concurrency && !self.is_resting.load(Relaxed)
    }

    /// Whether it gets only rows of batches that are at risk of missing their windows.
    pub(super) fn is_escalation(&self) -> bool {
        self.is_escalation
    }

    /// The hours in which rows begin, while it is outside them.
    #[must_use]
    pub fn rests_outside(&self) -> Option<RunWindow> {
        self.run_window.filter(|_| self.is_resting.load(Relaxed))
    }

    /// How many rows of all models are under way.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.load(Relaxed)
    }

    /// Where the rows under way are counted.
    pub(super) fn rows_under_way(&self) -> &AtomicUsize {
        &self.rows
    }

    /// Sends a call that was admitted, and judges how it ended: an answer that is the server's state is no answer to
    /// the row. The caller has a permit. `history` is what the row's calls before came to.
    pub(super) async fn post(
        &self,
        call: &Call,
        headers: &RowHeaders,
        admitted: AdmittedCall<'_>,
        history: &mut CallHistory,
    ) -> Result<HttpResponse, UpstreamError> {
        let (response, judgement) = match self.judged((call, headers), &admitted, *history).await {
            Ok(judged) => judged,
            Err(error) => {
                history.failed_at = Some(self.no);
                if let UpstreamError::Unreachable(why) | UpstreamError::Broken(why) = &error {
                    metrics::call_refused(&self.name, "gone");
                    admitted.gone(None, why.clone(), history);
                }
                return Err(error);
            }
        };
        let said = || match &response.reading {
            BodyReading::Unreadable(why) => format!("its answer cannot be read: {why}"),
            BodyReading::Unread | BodyReading::Answer(_) => format!("it answered with status {}", response.status),
        };
        let why = match judgement {
            Judgement::Answered => {
                admitted.answered(&response, history);
                return Ok(response);
            }
            Judgement::Busy => {
                metrics::call_refused(&self.name, "busy");
                admitted.refused(&response, said(), history);
                said()
            }
            Judgement::Gone(why) | Judgement::GoneUnlessItShowsModels(why) => {
                metrics::call_refused(&self.name, "gone");
                let why = format!("{}: {why}", said());
                admitted.gone(response.retry_after, why.clone(), history);
                why
            }
            Judgement::Unavailable(why) | Judgement::UnavailableUnlessItShowsModels(why) => {
                metrics::call_refused(&self.name, "unavailable");
                let why = format!("{}: {why}", said());
                admitted.unavailable(response.retry_after, why.clone(), history);
                why
            }
        };
        Err(UpstreamError::Unavailable(why))
    }

    /// An answer, and what it says of the server.
    async fn judged(
        &self,
        (call, headers): (&Call, &RowHeaders),
        admitted: &AdmittedCall<'_>,
        history: CallHistory,
    ) -> Result<(HttpResponse, Judgement), UpstreamError> {
        let api = &self.responses_api;
        let asks_for_responses = call.endpoint == Endpoint::Responses && api.may_be_tried() && !api.has_answered();
        let response = self.answer(call, headers).await?;
        let judgement = judge(&response, admitted.signs(history));
        let is_doubtful =
            matches!(judgement, Judgement::UnavailableUnlessItShowsModels(_) | Judgement::GoneUnlessItShowsModels(_));
        if !is_doubtful {
            return Ok((response, judgement));
        }
        // Such an answer says which API the server has.
        if asks_for_responses && shows_no_endpoint(&response) {
            return Ok((response, Judgement::Answered));
        }
        if !self.shows_models().await {
            return Ok((response, judgement));
        }
        // Asked again, because the server may have come back between the two answers.
        let again = self.answer(call, headers).await?;
        let judgement = judge(&again, RowSigns { has_taken_others: true, ..admitted.signs(history) });
        Ok((again, judgement))
    }

    async fn shows_models(&self) -> bool {
        self.models().await.is_ok_and(|models| models.is_success())
    }

    /// The server's list of models, as it answers it. That of an embedding program's own client is empty.
    ///
    /// # Errors
    /// Why there is no answer within `LIST_PATIENCE`.
    pub async fn models(&self) -> Result<HttpResponse, UpstreamError> {
        match &self.client {
            ServerClient::Http(client) => timeout(LIST_PATIENCE, client.models())
                .await
                .unwrap_or_else(|_| Err(UpstreamError::Timeout(format!("it had {} s", LIST_PATIENCE.as_secs())))),
            ServerClient::Embedded(_) => Ok(HttpResponse::json(200, &json!({ "object": "list", "data": [] }))),
        }
    }

    /// The admission of a model's calls. It is forgotten when nobody uses it.
    #[must_use]
    pub fn admission(&self, model: &Arc<str>) -> Arc<Admission> {
        let mut admissions = lock(&self.admissions);
        if let Some(known) = admissions.get(model).and_then(Weak::upgrade) {
            return known;
        }
        admissions.retain(|_, admission| admission.strong_count() > 0);
        let of = AdmittedModel { upstream: self.name.clone(), server_no: self.no, model: model.clone() };
        let admission = Admission::new(of, self.ceiling.clone(), self.controller(), self.rates, self.changed.clone());
        let admission = Arc::new(admission);
        admissions.insert(model.clone(), Arc::downgrade(&admission));
        admission
    }

    fn controller(&self) -> ConcurrencyController {
        let ceiling = self.ceiling.load(Relaxed);
        match self.concurrency {
            ConcurrencyControl::Auto => ConcurrencyController::new(ceiling),
            ConcurrencyControl::Fixed => ConcurrencyController::fixed(ceiling),
        }
    }

    fn admissions(&self) -> Vec<(Arc<str>, Arc<Admission>)> {
        let admissions = lock(&self.admissions);
        admissions.iter().filter_map(|(model, admission)| Some((model.clone(), admission.upgrade()?))).collect()
    }

    /// The models of which the server takes no calls, and why, in the order of their names.
    #[must_use]
    pub fn troubles(&self) -> Vec<(Arc<str>, String)> {
        let models = self.admissions().into_iter();
        let mut troubles: Vec<_> =
            models.filter_map(|(model, admission)| Some((model, admission.trouble()?))).collect();
        troubles.sort();
        troubles
    }

    /// Follows the time and the server's answers, and calls `tell` whenever rows may begin that could not. Never ends.
    pub async fn follow(&self, tell: impl Fn() + Send) {
        loop {
            let changed = self.changed.notified();
            let admissions = self.admissions();
            let is_resting = self.run_window.is_some_and(|window| !window.contains(self.clock.now()));
            self.is_resting.store(is_resting, Relaxed);
            metrics::upstream_takes_calls(
                &self.name,
                admissions.iter().all(|(_, admission)| admission.trouble().is_none()),
            );
            metrics::concurrency_chosen(&self.name, admissions.iter().map(|(_, admission)| admission.limit()).sum());
            let due = admissions.iter().filter_map(|(_, admission)| admission.follow());
            let due = due.fold(Instant::now() + LOOK_AGAIN, Instant::min);
            drop(admissions);
            tell();
            let _ = timeout_at(due, changed).await;
        }
    }

    /// Follows the registry's limit of calls under way.
    pub(super) fn follow_limit(&self, limit: usize) {
        self.ceiling.store(limit.min(self.max_concurrency), Relaxed);
        self.changed.notify_one();
    }

    /// Asks for the server's list of models, if that says which it has. Whether it is another one than before.
    ///
    /// # Errors
    /// Why there is no list. The last one remains.
    pub(super) async fn discover(&self) -> Result<bool, String> {
        let answer = self.models().await.map_err(|error| match error {
            UpstreamError::Timeout(_) => "it does not answer".to_owned(),
            error => error.to_string(),
        })?;
        if !answer.is_success() {
            return Err(format!("it answered with status {}", answer.status));
        }
        Ok(self.models.discover(listed_models(&answer.body)?))
    }

    /// Whether calls that ask for a schema or tools are better made through chat completions, although the server has
    /// `/v1/responses`.
    pub(super) async fn ignores_form(&self) -> bool {
        self.responses_api.may_be_tried() && self.software.ignores_form(self.models()).await
    }

    /// What is known of its `/v1/responses`.
    #[must_use]
    pub fn responses_api(&self) -> &Arc<ResponsesApi> {
        &self.responses_api
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        shown.field("name", &self.name).field("responses_api", &self.responses_api).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

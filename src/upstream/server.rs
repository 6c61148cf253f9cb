//! One inference server: what calls it, how many calls it may have under way, and what its answers have shown of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::admission::{
    Admission, AdmittedCall, ConcurrencyController, Judgement, RefusalHistory, RowSigns, judge, shows_no_endpoint,
};
use super::limiter::Limiter;
use super::responses_api::ResponsesApi;
use super::{Call, HttpClient, ReqwestHttpClient, RowHeaders, UpstreamError};
use crate::config::{ConcurrencyControl, Dialect};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;
use crate::sync::lock;
use crate::telemetry::metrics;

/// Whoever follows a server looks again after so long at the latest: time alone can make a model silent.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// An inference server.
pub struct Server {
    client: ServerClient,
    limiter: Limiter,
    concurrency: ConcurrencyControl,
    /// The admission of each model that is in use.
    admissions: Mutex<HashMap<Arc<str>, Weak<Admission>>>,
    /// Told when an admission has changed.
    changed: Arc<Notify>,
    responses_api: ResponsesApi,
}

/// What sends the calls. The client of `serve` is named, so that its calls need no allocation of their own.
enum ServerClient {
    Http(ReqwestHttpClient),
    Embedded(Box<dyn AnyHttpClient>),
}

/// An [`HttpClient`] whose type is not known: of each embedding program another one.
trait AnyHttpClient: Send + Sync {
    fn post_boxed(&self, call: Call) -> BoxFuture<'_, Result<HttpResponse, UpstreamError>>;
}

impl<H: HttpClient> AnyHttpClient for H {
    fn post_boxed(&self, call: Call) -> BoxFuture<'_, Result<HttpResponse, UpstreamError>> {
        Box::pin(self.post(call))
    }
}

impl Server {
    /// A server that is called over HTTP, for rows for `/v1/responses` in `dialect`. No call may be under way until
    /// [`Registry::set_limit`](super::Registry::set_limit) says how many.
    #[must_use]
    pub fn over_http(client: ReqwestHttpClient, dialect: Dialect, clock: Clock) -> Self {
        Self::new(ServerClient::Http(client), dialect, clock)
    }

    /// The same server, whose calls at once are controlled so. Without this it is [`ConcurrencyControl::Auto`].
    #[must_use]
    pub fn with_concurrency(self, concurrency: ConcurrencyControl) -> Self {
        Self { concurrency, ..self }
    }

    /// The same for whatever the client of an embedding program calls.
    #[must_use]
    pub fn embedded(client: impl HttpClient, dialect: Dialect, clock: Clock) -> Self {
        Self::new(ServerClient::Embedded(Box::new(client)), dialect, clock)
    }

    fn new(client: ServerClient, dialect: Dialect, clock: Clock) -> Self {
        let (admissions, changed) = (Mutex::default(), Arc::default());
        let responses_api = ResponsesApi::new(dialect, clock);
        let concurrency = ConcurrencyControl::Auto;
        Self { client, limiter: Limiter::new(0), concurrency, admissions, changed, responses_api }
    }

    /// Sends a call that was admitted, and judges how it ended: an answer that is the server's state is no answer to
    /// the row. The caller has a permit of [`Self::limiter`]. `history` is what the row's calls before came to.
    pub(super) async fn post(
        &self,
        call: &Call,
        headers: &RowHeaders,
        admitted: AdmittedCall<'_>,
        history: &mut RefusalHistory,
    ) -> Result<HttpResponse, UpstreamError> {
        let (response, judgement) = match self.judged((call, headers), &admitted, *history).await {
            Ok(judged) => judged,
            Err(error) => {
                if let UpstreamError::Unreachable(why) | UpstreamError::Broken(why) = &error {
                    metrics::call_refused("gone");
                    admitted.gone(None, why.clone(), history);
                }
                return Err(error);
            }
        };
        let said = || format!("it answered with status {}", response.status);
        let why = match judgement {
            Judgement::Answered => {
                admitted.answered(&response, history);
                return Ok(response);
            }
            Judgement::Busy => {
                metrics::call_refused("busy");
                admitted.refused(&response, said(), history);
                said()
            }
            Judgement::Gone(why) => {
                metrics::call_refused("gone");
                let why = format!("{}: {why}", said());
                admitted.gone(response.retry_after, why.clone(), history);
                why
            }
            Judgement::Unavailable(why) | Judgement::UnavailableUnlessItShowsModels(why) => {
                metrics::call_refused("unavailable");
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
        history: RefusalHistory,
    ) -> Result<(HttpResponse, Judgement), UpstreamError> {
        let api = &self.responses_api;
        let asks_for_responses = call.endpoint == Endpoint::Responses && api.may_be_tried() && !api.has_answered();
        let response = self.answer(call, headers).await?;
        let judgement = judge(&response, admitted.signs(history));
        if !matches!(judgement, Judgement::UnavailableUnlessItShowsModels(_)) {
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

    async fn answer(&self, call: &Call, headers: &RowHeaders) -> Result<HttpResponse, UpstreamError> {
        match &self.client {
            ServerClient::Http(client) => client.call(call, headers).await,
            ServerClient::Embedded(client) => client.post_boxed(call.clone()).await,
        }
    }

    async fn shows_models(&self) -> bool {
        self.models().await.is_ok_and(|models| models.is_success())
    }

    /// The server's list of models, as it answers it. That of an embedding program's own client is empty.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn models(&self) -> Result<HttpResponse, UpstreamError> {
        match &self.client {
            ServerClient::Http(client) => client.models().await,
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
        let admission = Arc::new(Admission::new(self.limiter.clone(), self.controller(), self.changed.clone()));
        admissions.insert(model.clone(), Arc::downgrade(&admission));
        admission
    }

    fn controller(&self) -> ConcurrencyController {
        let ceiling = self.limiter.limit();
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
            metrics::upstream_takes_calls(admissions.iter().all(|(_, admission)| admission.trouble().is_none()));
            metrics::concurrency_chosen(admissions.iter().map(|(_, admission)| admission.limit()).sum());
            let due = admissions.iter().filter_map(|(_, admission)| admission.follow());
            let due = due.fold(Instant::now() + LOOK_AGAIN, Instant::min);
            drop(admissions);
            tell();
            let _ = timeout_at(due, changed).await;
        }
    }

    /// Sets how many calls may be under way.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limiter.set_limit(limit);
        self.changed.notify_one();
    }

    /// The bound of the calls that may be under way.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// What is known of its `/v1/responses`.
    #[must_use]
    pub fn responses_api(&self) -> &ResponsesApi {
        &self.responses_api
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Server");
        shown.field("limiter", &self.limiter).field("responses_api", &self.responses_api).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

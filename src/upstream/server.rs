//! One inference server: what calls it, how many calls it may have under way, and what its answers have shown of it.

use std::fmt;

use futures::future::BoxFuture;
use serde_json::json;

use super::admission::{Admission, Judgement, judge};
use super::limiter::Limiter;
use super::responses_api::ResponsesApi;
use super::{Call, HttpClient, ReqwestHttpClient, UpstreamError};
use crate::config::Dialect;
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;

/// An inference server.
pub struct Server {
    client: ServerClient,
    limiter: Limiter,
    admission: Admission,
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

    /// The same for whatever the client of an embedding program calls.
    #[must_use]
    pub fn embedded(client: impl HttpClient, dialect: Dialect, clock: Clock) -> Self {
        Self::new(ServerClient::Embedded(Box::new(client)), dialect, clock)
    }

    fn new(client: ServerClient, dialect: Dialect, clock: Clock) -> Self {
        let limiter = Limiter::new(0);
        let admission = Admission::new(limiter.clone());
        Self { client, limiter, admission, responses_api: ResponsesApi::new(dialect, clock) }
    }

    /// Sends a call, and judges how it ended: an answer that is the server's state is no answer to the row. The caller
    /// has a permit of [`Self::limiter`]. `is_alone` says that its row was let through by itself.
    pub(super) async fn post(&self, call: Call, is_alone: bool) -> Result<HttpResponse, UpstreamError> {
        let admitted = self.admission.begin(is_alone)?;
        let asks_for_responses = call.endpoint == Endpoint::Responses && self.responses_api.may_be_tried();
        let response = match self.answer(call.clone()).await {
            Ok(response) => response,
            Err(error) => {
                if let UpstreamError::Unreachable(why) | UpstreamError::Broken(why) = &error {
                    admitted.gone(None, why.clone());
                }
                return Err(error);
            }
        };
        let why = match judge(&response, admitted.has_heard_others()) {
            Judgement::Answered => None,
            Judgement::Busy => {
                admitted.refused(&response);
                return Err(UpstreamError::Unavailable(format!("it answered with status {}", response.status)));
            }
            Judgement::Gone(why) => {
                let why = format!("it answered with status {}: {why}", response.status);
                admitted.gone(response.retry_after, why.clone());
                return Err(UpstreamError::Unavailable(why));
            }
            Judgement::Unavailable(why) => Some(why),
            // Such an answer says which API the server has.
            Judgement::UnavailableUnlessItShowsModels(_) if asks_for_responses => None,
            Judgement::UnavailableUnlessItShowsModels(why) => {
                if self.shows_models().await {
                    // Asked again, because the server may have come back between the two answers.
                    let again = self.answer(call).await?;
                    admitted.answered(&again);
                    return Ok(again);
                }
                Some(why)
            }
        };
        let Some(why) = why else {
            admitted.answered(&response);
            return Ok(response);
        };
        let why = format!("it answered with status {}: {why}", response.status);
        admitted.unavailable(response.retry_after, why.clone());
        Err(UpstreamError::Unavailable(why))
    }

    async fn answer(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        match &self.client {
            ServerClient::Http(client) => client.post(call).await,
            ServerClient::Embedded(client) => client.post_boxed(call).await,
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

    /// Sets how many calls may be under way. While the server refuses calls, fewer are.
    pub(super) fn set_limit(&self, limit: usize) {
        self.admission.set_ceiling(limit);
    }

    /// How many calls may be under way, if the server refuses none.
    pub(super) fn limit(&self) -> usize {
        self.admission.ceiling()
    }

    /// Whether a row may begin: the server takes calls, or is to be asked whether it does.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.admission.may_begin()
    }

    /// A row begins. Whether it is let through by itself; then [`Self::leave`] is to be called at its end.
    #[must_use]
    pub fn enter(&self) -> bool {
        self.admission.enter()
    }

    /// A row that was let through by itself has ended.
    pub fn leave(&self) {
        self.admission.leave();
    }

    /// Why the server takes no calls, if it takes none.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.admission.trouble()
    }

    /// Follows the time and the server's answers, and calls `tell` whenever rows may begin that could not. Never ends.
    pub async fn follow(&self, tell: impl Fn() + Send) {
        self.admission.follow(tell).await;
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

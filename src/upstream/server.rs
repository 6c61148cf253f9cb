//! One inference server: what calls it, how many calls it may have under way, and what its answers have shown of it.

use std::fmt;

use futures::future::BoxFuture;
use serde_json::json;

use super::limiter::Limiter;
use super::responses_api::ResponsesApi;
use super::{Call, HttpClient, ReqwestHttpClient, UpstreamError};
use crate::config::Dialect;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;

/// An inference server.
pub struct Server {
    client: ServerClient,
    limiter: Limiter,
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
        Self { client, limiter: Limiter::new(0), responses_api: ResponsesApi::new(dialect, clock) }
    }

    /// Sends a call. The caller has a permit of [`Self::limiter`].
    pub(super) async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        match &self.client {
            ServerClient::Http(client) => client.post(call).await,
            ServerClient::Embedded(client) => client.post_boxed(call).await,
        }
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

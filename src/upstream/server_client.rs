//! What sends the calls of a server.

use futures::future::BoxFuture;

use super::{Call, HttpClient, ReqwestHttpClient, UpstreamError};
use crate::domain::outcome::HttpResponse;

/// What sends the calls. The client of `serve` is named, so that its calls need no allocation of their own.
pub(super) enum ServerClient {
    Http(ReqwestHttpClient),
    Embedded(Box<dyn AnyHttpClient>),
}

/// An [`HttpClient`] whose type is not known: of each embedding program another one.
pub(super) trait AnyHttpClient: Send + Sync {
    fn post_boxed(&self, call: Call) -> BoxFuture<'_, Result<HttpResponse, UpstreamError>>;
}

impl<H: HttpClient> AnyHttpClient for H {
    fn post_boxed(&self, call: Call) -> BoxFuture<'_, Result<HttpResponse, UpstreamError>> {
        Box::pin(self.post(call))
    }
}

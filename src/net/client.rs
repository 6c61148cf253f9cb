//! The one way to build an HTTP client.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, retry};
use rustls::ClientConfig;

use super::guard::PublicOnly;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings in which HTTP clients for different servers differ. None limits a whole call: the caller does.
#[derive(Debug, Clone, Default)]
pub struct ClientSettings {
    /// Sent with every request.
    pub headers: HeaderMap,
    /// How long a server may send nothing before its connection is closed, also if no caller waits for it any more. It
    /// must be longer than the callers wait, so that each caller sees its own time-out. `None` is no limit.
    pub read_timeout: Option<Duration>,
    /// Connections to one host that are kept open between calls. `None` is no limit.
    pub max_idle: Option<usize>,
    /// Which addresses the client connects to.
    pub reach: Reach,
    /// TLS with other certificates than those of the system.
    pub tls: Option<ClientConfig>,
}

/// Which addresses a client connects to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// All: for URLs that the operator gave.
    #[default]
    Everywhere,
    /// Public ones only, whatever a name resolves to: for URLs that came from a client. A host that is an address is
    /// not resolved; [`AllowedHosts::check`](super::AllowedHosts::check) and
    /// [`check_receiver`](super::check_receiver) check it.
    PublicOnly,
}

impl ClientSettings {
    /// Builds the client. It makes no connection yet.
    ///
    /// # Errors
    /// Why the system's TLS certificates cannot be used.
    pub fn build(mut self) -> Result<Client, reqwest::Error> {
        // Servers compress answers to requests that say nothing of it, so answers are decoded however they come.
        self.headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        // Fails only if a provider is installed already, which is then the embedding program's choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .default_headers(self.headers)
            .user_agent(concat!("batchwright/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect is an answer like any other: following it could carry the headers, and a key, elsewhere.
            .redirect(Policy::none())
            // Nothing is sent twice behind the caller's back, so no copy of a request has to be kept.
            .retry(retry::never().max_retries_per_request(0));
        if let Some(read_timeout) = self.read_timeout {
            client = client.read_timeout(read_timeout);
        }
        if let Some(max_idle) = self.max_idle {
            client = client.pool_max_idle_per_host(max_idle);
        }
        if let Some(tls) = self.tls {
            client = client.tls_backend_preconfigured(tls);
        }
        if self.reach == Reach::PublicOnly {
            // A proxy would resolve names by itself.
            client = client.dns_resolver(Arc::new(PublicOnly)).no_proxy();
        }
        client.build()
    }
}

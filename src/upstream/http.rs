//! The HTTP client for real upstreams.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Request, Response, Url};

use super::{Call, HttpClient, UpstreamError, retry_after};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// No inference server answers with more; what does is broken, and must not fill the memory.
const MAX_ANSWER_BYTES: usize = 64 << 20;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Which upstream, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// The base URL, such as `http://127.0.0.1:8000/v1`.
    pub base_url: Url,
    /// The value of the header `Authorization`.
    pub key: Option<HeaderValue>,
    /// How long a whole call may take.
    pub timeout: Duration,
    /// How many connections are kept open between calls.
    pub max_idle: usize,
}

/// An [`HttpClient`] over pooled HTTP/1.1 connections.
#[derive(Clone)]
pub struct ReqwestHttpClient {
    client: Client,
    paths: Arc<Paths>,
    timeout: Duration,
    clock: Clock,
}

struct Paths {
    models: Url,
    endpoints: [Url; Endpoint::ALL.len()],
}

impl ReqwestHttpClient {
    /// A client for one upstream. No connection is made yet.
    ///
    /// # Errors
    /// Why the system's TLS certificates cannot be used.
    pub fn new(settings: &UpstreamSettings, clock: Clock) -> Result<Self, reqwest::Error> {
        // Fails only if a provider is installed already, which is then the embedding program's choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &settings.key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("batchwright/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(settings.max_idle)
            // A redirect is an answer like any other: following it could send the key elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let below = |path: &str| {
            let mut url = settings.base_url.clone();
            url.set_path(&format!("{}/{path}", settings.base_url.path().trim_end_matches('/')));
            url
        };
        let endpoints = Endpoint::ALL.map(|endpoint| below(endpoint.path_below_v1()));
        Ok(Self {
            client,
            paths: Arc::new(Paths { models: below("models"), endpoints }),
            timeout: settings.timeout,
            clock,
        })
    }

    /// The upstream's list of models, as it answers it.
    pub async fn models(&self) -> Result<HttpResponse, UpstreamError> {
        self.send(Request::new(Method::GET, self.paths.models.clone())).await
    }

    async fn send(&self, request: Request) -> Result<HttpResponse, UpstreamError> {
        let timed_out = || UpstreamError::Timeout(format!("it had {}", humantime::format_duration(self.timeout)));
        tokio::time::timeout(self.timeout, self.answer(request)).await.map_err(|_| timed_out())?
    }

    async fn answer(&self, request: Request) -> Result<HttpResponse, UpstreamError> {
        let response = self.client.execute(request).await.map_err(why)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let asked = (header("retry-after-ms"), header(RETRY_AFTER.as_str()));
        let retry_after = match asked {
            (None, None) => None,
            (millis, text) => retry_after::read(millis, text, self.clock.now()),
        };
        let request_id = header("x-request-id").map(str::to_owned);
        let status = response.status().as_u16();
        Ok(HttpResponse { status, request_id, retry_after, body: body_of(response).await? })
    }
}

impl HttpClient for ReqwestHttpClient {
    async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        let mut request = Request::new(Method::POST, self.paths.endpoints[call.endpoint as usize].clone());
        let key = HeaderValue::try_from(call.key).expect("keys are ASCII letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY.clone(), key);
        *request.body_mut() = Some(call.body.into());
        self.send(request).await
    }
}

async fn body_of(mut response: Response) -> Result<Bytes, UpstreamError> {
    let too_large = UpstreamError::TooLarge { limit: MAX_ANSWER_BYTES };
    match response.content_length() {
        Some(length) if length <= MAX_ANSWER_BYTES as u64 => response.bytes().await.map_err(why),
        Some(_) => Err(too_large),
        None => {
            let mut body = BytesMut::new();
            while let Some(chunk) = response.chunk().await.map_err(why)? {
                if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(too_large);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(body.freeze())
        }
    }
}

/// The innermost cause says what happened; the outer ones say "error sending request" and the URL.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn why(error: reqwest::Error) -> UpstreamError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let text = cause.to_string();
    if error.is_timeout() { UpstreamError::Timeout(text) } else { UpstreamError::Network(text) }
}

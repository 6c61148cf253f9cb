//! The HTTP client for real upstreams.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, TryFutureExt as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Response, StatusCode, Url};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::answer_budget::{AnswerBudget, Reservation};
use super::form::form;
use super::row_headers::ChosenMetadata;
use super::streamed::{EventStream, Fold};
use super::{Call, HttpClient, RowHeaders, UpstreamError};
use crate::domain::endpoint::{Endpoint, UpstreamPath};
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;
use crate::net::{
    self, AnswerProgress, BoundedBody, ClientSettings, IDEMPOTENCY_KEY, UnfinishedBody, rate_limits, retry_after,
};
use crate::sync::lock;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// The media type of a stream.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Which upstream, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// The base URL, such as `http://127.0.0.1:8000/v1`.
    pub base_url: Url,
    /// Sent with every call, such as `Authorization`.
    pub headers: HeaderMap,
    /// TLS with other certificates than those of the system.
    pub tls: Option<ClientConfig>,
    /// How long a whole call may take.
    pub timeout: Duration,
    /// How long a server may send nothing in the middle of an answer.
    pub stall_timeout: Duration,
    /// How many connections are kept open between calls.
    pub max_idle: usize,
}

/// An [`HttpClient`] over pooled HTTP/1.1 connections.
#[derive(Clone)]
pub struct ReqwestHttpClient {
    client: Client,
    base_url: Arc<Url>,
    /// The URLs that were called before, so that no call of a row puts one together.
    urls: Arc<Mutex<HashMap<UpstreamPath, Url>>>,
    /// The version of Anthropic's API that messages are for: that of the settings, or the one there is.
    anthropic_version: HeaderValue,
    timeout: Duration,
    stall_timeout: Duration,
    clock: Clock,
    budget: AnswerBudget,
    /// The proxy of the environment that calls go through, for the words of failures.
    proxy: Option<Arc<str>>,
}

impl ReqwestHttpClient {
    /// A client for one upstream. No connection is made yet.
    ///
    /// # Errors
    /// Why the system's TLS certificates cannot be used.
    pub fn new(settings: &UpstreamSettings, clock: Clock) -> Result<Self, reqwest::Error> {
        let mut headers = settings.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let anthropic_version = headers.get(&ANTHROPIC_VERSION).cloned();
        let client = ClientSettings {
            headers,
            max_idle: Some(settings.max_idle),
            tls: settings.tls.clone(),
            ..ClientSettings::default()
        }
        .build()?;
        Ok(Self {
            client,
            base_url: Arc::new(settings.base_url.clone()),
            urls: Arc::default(),
            anthropic_version: anthropic_version.unwrap_or(HeaderValue::from_static("2023-06-01")),
            timeout: settings.timeout,
            stall_timeout: settings.stall_timeout,
            clock,
            budget: AnswerBudget::default(),
            proxy: net::proxy_of(&settings.base_url).ok().flatten().map(Arc::from),
        })
    }

    /// The upstream's list of models, as it answers it.
    pub async fn models(&self) -> Result<HttpResponse, UpstreamError> {
        self.send(Request::new(Method::GET, self.url(UpstreamPath::BelowV1("models")))).await
    }

    /// The upstream's own metrics, as it answers them.
    pub(super) async fn metrics(&self) -> Result<HttpResponse, UpstreamError> {
        self.send(Request::new(Method::GET, self.url(UpstreamPath::BesideV1("/metrics")))).await
    }

    /// Makes a call for a row.
    pub(super) async fn call(&self, call: &Call, headers: &RowHeaders) -> Result<HttpResponse, UpstreamError> {
        let mut request = self.request(call);
        headers.add_to(request.headers_mut());
        self.send(request).await
    }

    /// Makes a call for several rows, which have this metadata in common.
    pub(super) async fn call_for_rows(
        &self,
        call: &Call,
        metadata: &ChosenMetadata,
    ) -> Result<HttpResponse, UpstreamError> {
        let mut request = self.request(call);
        metadata.add_to(request.headers_mut());
        self.send(request).await
    }

    /// Makes a call for a row with this body, which asks for a stream, and puts the answer together. A server that does
    /// not stream may answer as to any other call.
    pub(super) async fn call_streamed(
        &self,
        call: &Call,
        body: Bytes,
        headers: &RowHeaders,
    ) -> Result<HttpResponse, UpstreamError> {
        let mut request = self.request(call);
        headers.add_to(request.headers_mut());
        *request.body_mut() = Some(body.into());
        let (deadline, received) = (Instant::now() + self.timeout, AnswerProgress::default());
        let response = self.in_time(deadline, &received, pin!(self.execute(request, &received))).await?;
        let is_stream = response.status().is_success()
            && response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM));
        if is_stream {
            return self.fold(response, call.endpoint, deadline, &received).await;
        }
        let begun = self.in_time(deadline, &received, pin!(self.answer(response, &received))).await?;
        self.whole(begun, deadline, &received).await
    }

    /// Puts a streamed answer together.
    async fn fold(
        &self,
        mut response: Response,
        endpoint: Endpoint,
        mut deadline: Instant,
        received: &AnswerProgress,
    ) -> Result<HttpResponse, UpstreamError> {
        let head = self.head(&response);
        let (mut events, mut fold, mut room) = (EventStream::default(), Fold::new(endpoint), None);
        let folded = loop {
            let stalled = fold.has_begun().then(|| Instant::now() + self.stall_timeout);
            let ends = stalled.map_or(deadline, |stalled| stalled.min(deadline));
            let chunk = timeout_at(ends, response.chunk()).await;
            let chunk = chunk.map_err(|_| self.timed_out(ends < deadline, received))?;
            let chunk = chunk.map_err(|error| self.failure(&error, received))?;
            let Some(chunk) = chunk else { break fold.at_end_of_connection() };
            received.note(&chunk);
            events.push(&chunk);
            let mut news = std::iter::from_fn(|| events.next_event());
            if let Some(folded) = news.find_map(|(data, is_error)| fold.add(&data, is_error)) {
                break Some(folded);
            }
            let held = fold.held() + events.held();
            if held > self.budget.largest() {
                return Err(UpstreamError::TooLarge { limit: self.budget.largest() });
            }
            if held > self.budget.share() && room.is_none() {
                // The upstream is not at fault if there is no room for its answer.
                let waiting = Instant::now();
                room = Some(self.budget.reserve(self.budget.largest()).await);
                deadline += waiting.elapsed();
            }
        };
        let broken = |why: String| UpstreamError::Broken(why);
        let folded = folded.ok_or_else(|| broken("its stream has ended in the middle of an answer".to_owned()))?;
        let answer = folded.in_place_of(head).map_err(broken)?;
        Ok(match room {
            Some(room) => HttpResponse { body: room.fill(answer.body), ..answer },
            None => answer,
        })
    }

    fn timed_out(&self, has_stalled: bool, received: &AnswerProgress) -> UpstreamError {
        let shown = humantime::format_duration;
        UpstreamError::Timeout(if has_stalled {
            format!("it sent nothing for {} {received}", shown(self.stall_timeout))
        } else {
            format!("it had {}, which ended {received}", shown(self.timeout))
        })
    }

    /// Why a call has no answer, in words.
    fn failure(&self, error: &reqwest::Error, received: &AnswerProgress) -> UpstreamError {
        let text = net::innermost(error);
        let through = self.proxy.as_ref().map_or_else(String::new, |proxy| format!(", through the proxy {proxy}"));
        if error.is_connect() {
            UpstreamError::Unreachable(format!("{text}{through}"))
        } else if error.is_timeout() {
            UpstreamError::Timeout(format!("{text}, {received}{through}"))
        } else if net::is_invalid_head(error) {
            UpstreamError::Broken(format!("the head of its answer cannot be read: {text}{through}"))
        } else {
            UpstreamError::Broken(format!("{text}, {received}{through}"))
        }
    }

    fn url(&self, path: UpstreamPath) -> Url {
        lock(&self.urls).entry(path).or_insert_with(|| self.new_url(path)).clone()
    }

    fn new_url(&self, path: UpstreamPath) -> Url {
        let base = self.base_url.path().trim_end_matches('/');
        let path = match path {
            UpstreamPath::BelowV1(path) => format!("{base}/{path}"),
            UpstreamPath::BesideV1(path) => format!("{}{path}", base.strip_suffix("/v1").unwrap_or(base)),
        };
        let mut url = (*self.base_url).clone();
        url.set_path(&path);
        url
    }

    fn request(&self, call: &Call) -> Request {
        let url = self.url(call.endpoint.upstream_path());
        let mut request = if let Some(file) = &call.file {
            let form = self.client.post(url).multipart(form(&call.body, file));
            form.build().expect("the URL is one, and a form has no header of its own but its boundary")
        } else {
            let mut request = Request::new(Method::POST, url);
            *request.body_mut() = Some(call.body.clone().into());
            request
        };
        let key = HeaderValue::from_str(&call.key).expect("keys are ASCII letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY.clone(), key);
        if call.endpoint == Endpoint::Messages {
            request.headers_mut().insert(ANTHROPIC_VERSION.clone(), self.anthropic_version.clone());
        }
        request
    }

    async fn send(&self, request: Request) -> Result<HttpResponse, UpstreamError> {
        let (deadline, received) = (Instant::now() + self.timeout, AnswerProgress::default());
        let answer = pin!(self.execute(request, &received).and_then(|response| self.answer(response, &received)));
        let begun = self.in_time(deadline, &received, answer).await?;
        self.whole(begun, deadline, &received).await
    }

    /// Sends a request, and waits for the head of its answer.
    fn execute(
        &self,
        request: Request,
        received: &AnswerProgress,
    ) -> impl Future<Output = Result<Response, UpstreamError>> {
        self.client.execute(request).map(|ended| {
            let response = ended.map_err(|error| self.failure(&error, received))?;
            received.note_head();
            match response.status() {
                // The connection no longer speaks HTTP.
                StatusCode::SWITCHING_PROTOCOLS => Err(UpstreamError::Broken("it answered with status 101".into())),
                _ => Ok(response),
            }
        })
    }

    /// Reads the rest of an answer, if it is large, until a deadline.
    async fn whole(
        &self,
        begun: Begun,
        deadline: Instant,
        received: &AnswerProgress,
    ) -> Result<HttpResponse, UpstreamError> {
        let (answer, rest) = match begun {
            Begun::Whole(answer) => return Ok(answer),
            Begun::Large(large) => *large,
        };
        // The upstream is not at fault if there is no room for its answer.
        let waiting = Instant::now();
        let reservation = self.budget.reserve(rest.length().unwrap_or(self.budget.largest())).await;
        let deadline = deadline + waiting.elapsed();
        let body = self.in_time(deadline, received, pin!(self.large(rest, reservation, received))).await?;
        Ok(HttpResponse { body, ..answer })
    }

    /// Bounds a part of a call: its end, and the silence in the middle of its answer. The work is pinned by the caller,
    /// because a future that was moved here would have its room twice.
    async fn in_time<T>(
        &self,
        deadline: Instant,
        received: &AnswerProgress,
        mut work: Pin<&mut impl Future<Output = Result<T, UpstreamError>>>,
    ) -> Result<T, UpstreamError> {
        let begin = Instant::now();
        let last_bytes = || received.last_bytes().map(|last| last.max(begin));
        loop {
            let seen = last_bytes();
            let stalls = seen.unwrap_or_else(Instant::now) + self.stall_timeout;
            if let Ok(ended) = timeout_at(deadline.min(stalls), work.as_mut()).await {
                return ended;
            }
            let has_stalled = stalls < deadline;
            if !has_stalled || (seen.is_some() && seen == last_bytes()) {
                return Err(self.timed_out(has_stalled, received));
            }
        }
    }

    /// The answer, as far as it may be read without a reservation.
    async fn answer(&self, response: Response, received: &AnswerProgress) -> Result<Begun, UpstreamError> {
        let failure = |error: reqwest::Error| self.failure(&error, received);
        let (head, is_success) = (self.head(&response), response.status().is_success());
        let with = |body| HttpResponse { body, ..head };
        let rest = match net::read_body(response, self.budget.share(), received).await.map_err(failure)? {
            BoundedBody::Whole(body) => return Ok(Begun::Whole(with(body))),
            BoundedBody::TooLong(rest) => rest,
        };
        if !is_success {
            // An error is cut off: a row that has failed may wait for others that need the room.
            let beginning = rest.read_beginning(self.budget.share(), received).await;
            return Ok(Begun::Whole(with(beginning.map_err(failure)?)));
        }
        if rest.length().is_some_and(|length| length > self.budget.largest()) {
            return Err(UpstreamError::TooLarge { limit: self.budget.largest() });
        }
        Ok(Begun::Large(Box::new((with(Bytes::new()), rest))))
    }

    /// The body of an answer that has a reservation.
    async fn large(
        &self,
        rest: UnfinishedBody,
        reservation: Reservation,
        received: &AnswerProgress,
    ) -> Result<Bytes, UpstreamError> {
        let (has_length, largest) = (rest.length().is_some(), self.budget.largest());
        match rest.read_on(largest, received).await.map_err(|error| self.failure(&error, received))? {
            // What grew may have twice the room that it needs.
            BoundedBody::Whole(body) if !has_length => Ok(reservation.fill(Bytes::copy_from_slice(&body))),
            BoundedBody::Whole(body) => Ok(reservation.fill(body)),
            BoundedBody::TooLong(_) => Err(UpstreamError::TooLarge { limit: largest }),
        }
    }

    /// What the head of a response says; without its body.
    fn head(&self, response: &Response) -> HttpResponse {
        let retry_after = retry_after(response.headers(), &self.clock);
        let text = |name: &HeaderName| response.headers().get(name)?.to_str().ok();
        let request_id = text(&REQUEST_ID).map(str::to_owned);
        let should_retry = text(&SHOULD_RETRY).and_then(|value| value.parse().ok());
        let status = response.status().as_u16();
        let rate_limits = Some(rate_limits(response.headers())).filter(|limits| !limits.is_none()).map(Box::new);
        HttpResponse { status, request_id, retry_after, should_retry, rate_limits, ..HttpResponse::default() }
    }
}

/// An answer of which the headers have come.
enum Begun {
    /// It is complete.
    Whole(HttpResponse),
    /// It is larger than its share: without its body, and what there is of that.
    Large(Box<(HttpResponse, UnfinishedBody)>),
}

impl HttpClient for ReqwestHttpClient {
    async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        self.send(self.request(&call)).await
    }
}

#[cfg(test)]
mod tests;

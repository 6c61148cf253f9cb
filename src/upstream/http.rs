//! The HTTP client for real upstreams.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, TryFutureExt as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, Response, Url};
use tokio::time::{Instant, timeout_at};

use super::answer_budget::{AnswerBudget, Reservation};
use super::row_headers::ChosenMetadata;
use super::streamed::{EventStream, Fold};
use super::{Call, HttpClient, RowHeaders, UpstreamError};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;
use crate::net::{self, BoundedBody, ClientSettings, IDEMPOTENCY_KEY, UnfinishedBody, rate_limits, retry_after};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
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
    /// How long a whole call may take.
    pub timeout: Duration,
    /// How long a server may send nothing in the middle of a streamed answer.
    pub stall_timeout: Duration,
    /// How many connections are kept open between calls.
    pub max_idle: usize,
}

/// An [`HttpClient`] over pooled HTTP/1.1 connections.
#[derive(Clone)]
pub struct ReqwestHttpClient {
    client: Client,
    paths: Arc<Paths>,
    timeout: Duration,
    stall_timeout: Duration,
    clock: Clock,
    budget: AnswerBudget,
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
        let mut headers = settings.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client =
            ClientSettings { headers, max_idle: Some(settings.max_idle), ..ClientSettings::default() }.build()?;
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
            stall_timeout: settings.stall_timeout,
            clock,
            budget: AnswerBudget::default(),
        })
    }

    /// The upstream's list of models, as it answers it.
    pub async fn models(&self) -> Result<HttpResponse, UpstreamError> {
        self.send(Request::new(Method::GET, self.paths.models.clone())).await
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
        let deadline = Instant::now() + self.timeout;
        let response = self.in_time(deadline, self.client.execute(request).map_err(why)).await?;
        let is_stream = response.status().is_success()
            && response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(EVENT_STREAM));
        if is_stream { self.fold(response, call.endpoint, deadline).await } else { self.read(response, deadline).await }
    }

    /// Puts a streamed answer together.
    async fn fold(
        &self,
        mut response: Response,
        endpoint: Endpoint,
        mut deadline: Instant,
    ) -> Result<HttpResponse, UpstreamError> {
        let head = self.head(&response);
        let (mut events, mut fold, mut room) = (EventStream::default(), Fold::new(endpoint), None);
        let folded = loop {
            let stalled = fold.has_begun().then(|| Instant::now() + self.stall_timeout);
            let ends = stalled.map_or(deadline, |stalled| stalled.min(deadline));
            let chunk = timeout_at(ends, response.chunk()).await.map_err(|_| self.timed_out(ends < deadline))?;
            let Some(chunk) = chunk.map_err(why)? else { break fold.at_end_of_connection() };
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

    fn timed_out(&self, has_stalled: bool) -> UpstreamError {
        let shown = humantime::format_duration;
        UpstreamError::Timeout(if has_stalled {
            format!("it has sent nothing for {} in the middle of its answer", shown(self.stall_timeout))
        } else {
            format!("it had {}", shown(self.timeout))
        })
    }

    fn request(&self, call: &Call) -> Request {
        let mut request = Request::new(Method::POST, self.paths.endpoints[call.endpoint as usize].clone());
        let key = HeaderValue::from_str(&call.key).expect("keys are ASCII letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY.clone(), key);
        *request.body_mut() = Some(call.body.clone().into());
        request
    }

    async fn send(&self, request: Request) -> Result<HttpResponse, UpstreamError> {
        let deadline = Instant::now() + self.timeout;
        let response = self.in_time(deadline, self.client.execute(request).map_err(why)).await?;
        self.read(response, deadline).await
    }

    /// Reads an answer until a deadline.
    async fn read(&self, response: Response, deadline: Instant) -> Result<HttpResponse, UpstreamError> {
        let (answer, rest) = match self.in_time(deadline, self.answer(response)).await? {
            Begun::Whole(answer) => return Ok(answer),
            Begun::Large(large) => *large,
        };
        // The upstream is not at fault if there is no room for its answer.
        let waiting = Instant::now();
        let reservation = self.budget.reserve(rest.length().unwrap_or(self.budget.largest())).await;
        let deadline = deadline + waiting.elapsed();
        let body = self.in_time(deadline, read_large(rest, reservation, self.budget.largest())).await?;
        Ok(HttpResponse { body, ..answer })
    }

    /// Bounds a part of a call. Not an `async fn`, which would hold the future twice: each row allocates its room.
    fn in_time<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> impl Future<Output = Result<T, UpstreamError>> {
        timeout_at(deadline, work).map(|ended| ended.map_err(|_| self.timed_out(false))?)
    }

    /// The answer, as far as it may be read without a reservation.
    async fn answer(&self, response: Response) -> Result<Begun, UpstreamError> {
        let (head, is_success) = (self.head(&response), response.status().is_success());
        let with = |body| HttpResponse { body, ..head };
        let rest = match net::read_body(response, self.budget.share()).await.map_err(why)? {
            BoundedBody::Whole(body) => return Ok(Begun::Whole(with(body))),
            BoundedBody::TooLong(rest) => rest,
        };
        if !is_success {
            // An error is cut off: a row that has failed may wait for others that need the room.
            return Ok(Begun::Whole(with(rest.read_beginning(self.budget.share()).await.map_err(why)?)));
        }
        if rest.length().is_some_and(|length| length > self.budget.largest()) {
            return Err(UpstreamError::TooLarge { limit: self.budget.largest() });
        }
        Ok(Begun::Large(Box::new((with(Bytes::new()), rest))))
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

async fn read_large(rest: UnfinishedBody, reservation: Reservation, largest: usize) -> Result<Bytes, UpstreamError> {
    let has_length = rest.length().is_some();
    match rest.read_on(largest).await.map_err(why)? {
        // What grew may have twice the room that it needs.
        BoundedBody::Whole(body) if !has_length => Ok(reservation.fill(Bytes::copy_from_slice(&body))),
        BoundedBody::Whole(body) => Ok(reservation.fill(body)),
        BoundedBody::TooLong(_) => Err(UpstreamError::TooLarge { limit: largest }),
    }
}

impl HttpClient for ReqwestHttpClient {
    async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        self.send(self.request(&call)).await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn why(error: reqwest::Error) -> UpstreamError {
    let text = net::innermost(&error);
    if error.is_connect() {
        UpstreamError::Unreachable(text)
    } else if error.is_timeout() {
        UpstreamError::Timeout(text)
    } else {
        UpstreamError::Broken(text)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::Router;
    use axum::body::Body;
    use axum::routing::post;
    use futures::future::join_all;
    use futures::stream;

    use super::*;

    const KIB: usize = 1 << 10;

    /// A client with little room, of a server that answers with as many bytes as it is told: how they are sent, and
    /// with which status.
    async fn client(budget: AnswerBudget, timeout: Duration) -> ReqwestHttpClient {
        let answer = async |body: Bytes| {
            let text = str::from_utf8(&body).expect("a text");
            let (status, kib) = text.split_once(' ').expect("two words");
            let bytes = "x".repeat(kib.trim_start_matches('~').parse::<usize>().expect("a number") * KIB);
            let body = match kib.strip_prefix('~') {
                None => Body::from(bytes),
                Some(_) => Body::from_stream(stream::iter([Ok::<_, Infallible>(bytes)])),
            };
            axum::http::Response::builder().status(status.parse::<u16>().expect("a status")).body(body).expect("valid")
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("an address")).parse().expect("a URL");
        let server = Router::new().route("/v1/chat/completions", post(answer));
        tokio::spawn(async move { axum::serve(listener, server).await });
        let settings =
            UpstreamSettings { base_url, headers: HeaderMap::new(), timeout, stall_timeout: timeout, max_idle: 8 };
        ReqwestHttpClient { budget, ..ReqwestHttpClient::new(&settings, Clock::System).expect("plain settings") }
    }

    fn call(what: String) -> Call {
        Call { endpoint: Endpoint::ChatCompletions, model: "m".into(), key: "k".to_owned(), body: what.into() }
    }

    #[tokio::test]
    async fn large_answers_wait_for_room_and_all_come() {
        let budget = AnswerBudget::new(4 * KIB, 64 * KIB, 256 * KIB);
        let client = client(budget, Duration::from_mins(1)).await;
        let sent = |no: usize| format!("200 {}{}", ["", "~"][no % 2], [1, 3, 5, 40, 64][no % 5]);

        let ask = async |no: usize| {
            let answer = client.post(call(sent(no))).await.expect("an answer");
            // Others get room meanwhile, if there is any.
            tokio::task::yield_now().await;
            assert_eq!(answer.body.len(), [1, 3, 5, 40, 64][no % 5] * KIB);
        };
        join_all((0..200).map(ask)).await;
    }

    #[tokio::test]
    async fn waiting_for_room_is_not_the_upstreams_time() {
        let budget = AnswerBudget::new(4 * KIB, 64 * KIB, 128 * KIB);
        let client = client(budget, Duration::from_secs(2)).await;
        let first = client.post(call("200 64".to_owned())).await.expect("an answer");

        let mut waiting = Box::pin(client.post(call("200 64".to_owned())));
        let waited = tokio::time::timeout(Duration::from_secs(3), &mut waiting).await;

        assert!(waited.is_err(), "there is no room as long as the first answer lives");
        assert_eq!(client.post(call("200 3".to_owned())).await.expect("an answer").body.len(), 3 * KIB, "a small one");
        drop(first);
        assert_eq!(waiting.await.expect("an answer").body.len(), 64 * KIB);
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_is_refused_and_an_error_is_cut_off() {
        let budget = AnswerBudget::new(4 * KIB, 64 * KIB, 128 * KIB);
        let client = client(budget, Duration::from_mins(1)).await;
        let too_large = Err(UpstreamError::TooLarge { limit: 64 * KIB });
        let cases = [
            ("200 64", Ok(64)),
            ("200 ~64", Ok(64)),
            ("200 65", too_large.clone()),
            ("200 ~65", too_large),
            ("503 4", Ok(4)),
            ("503 65", Ok(4)),
            ("503 ~65", Ok(4)),
        ];
        for (sent, expected) in cases {
            let answer = client.post(call(sent.to_owned())).await.map(|answer| answer.body.len() / KIB);
            assert_eq!(answer, expected, "{sent}");
        }
    }
}

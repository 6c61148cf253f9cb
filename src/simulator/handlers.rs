//! The stages of a request in the simulator: read, admit, wait, answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use axum::{Json, Router};
use futures::stream;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::answers::{self, Kind, SimulatedRequest};
use super::batching::{CallStatus, SimulatedRow};
use super::draws::Draws;
use super::engine::{Engine, EngineAnswer};
use super::failure::SimulatedFailure;
use super::script::{self, Cue};
use super::{Latency, Overload, SimulatorArgs, SimulatorState, messages, scripted, shaped};
use crate::domain::rate_limits::RateLimit;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The headers of a scenario that state the limit of tokens, what remains of it, and when it is whole again.
static TOKEN_LIMITS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Tokens that an answer may have if the request does not say.
const MOST_OUTPUT: u32 = 512;

/// A simulator and the stop signal of the listener that serves it.
pub struct SimulatedServer {
    shared: Arc<SimulatorState>,
    closing: CancellationToken,
}

/// All routes; `closing` ends every wait.
pub fn router(shared: Arc<SimulatorState>, closing: CancellationToken) -> Router {
    let endpoint = |kind| match kind {
        Kind::Response if shared.args.no_responses => any(no_responses),
        _ => inference(kind),
    };
    let paths = |kind: Kind| [Some(kind.path()), kind.other_path()].into_iter().flatten().map(move |path| (path, kind));
    let routes = Kind::ALL.into_iter().flat_map(paths);
    let router = routes.fold(Router::new(), |router, (path, kind)| router.route(path, endpoint(kind)));
    router
        .route("/v1/models", get(models))
        .route(
            "/stats",
            get(|State(server): State<Arc<SimulatedServer>>| async move { Json(server.shared.stats.snapshot()) }),
        )
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok" }))
        .fallback(|| async { SimulatedFailure::UnknownUrl })
        .method_not_allowed_fallback(|| async { SimulatedFailure::WrongMethod })
        .with_state(Arc::new(SimulatedServer { shared, closing }))
}

/// The requests of a scenario that wait for a slot, as the gauge of vLLM. Without a scenario it is 0.
async fn metrics(State(server): State<Arc<SimulatedServer>>) -> String {
    let waiting = server.shared.engine.as_ref().map_or(0, Engine::waiting);
    format!("vllm:num_requests_waiting{{engine=\"0\"}} {waiting}.0\n")
}

fn inference(kind: Kind) -> MethodRouter<Arc<SimulatedServer>> {
    post(async move |State(server): State<Arc<SimulatedServer>>, request: Request| {
        let response = infer(&server, kind, request).await;
        if response.status().as_u16() >= 400 {
            server.shared.stats.failed();
        }
        response
    })
}

async fn models(State(server): State<Arc<SimulatedServer>>) -> Response {
    json_text(answers::models(&server.shared.args.models))
}

/// Answers as a server without the Responses API does.
async fn no_responses(State(server): State<Arc<SimulatedServer>>) -> (StatusCode, Json<Value>) {
    server.shared.stats.arrived(Kind::Response, None);
    server.shared.stats.failed();
    (StatusCode::NOT_FOUND, Json(json!({ "detail": "Not Found" })))
}

async fn infer(server: &Arc<SimulatedServer>, kind: Kind, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let key = head.headers.get(&IDEMPOTENCY_KEY).map(HeaderValue::as_bytes);
    let repeat = server.shared.stats.arrived(kind, key);
    // Not the `Bytes` extractor: it has a size limit, and lifting that costs every request a layer.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return SimulatedFailure::InvalidBody.answer(kind);
    };
    let SimulatorArgs { seed, fail_rate, models, .. } = &server.shared.args;
    let mut draws = Draws::new(*seed, repeat, b"", &body);
    let request_id = draws.id();
    let is_unlucky = || Draws::new(*seed, repeat, key.unwrap_or_default(), &body).unit() < *fail_rate;

    let mut response = match RequestBody::read(&body) {
        Some(call) => match call.check(kind, models).and_then(|()| script::cue(kind, &body, *seed, repeat)) {
            Ok(cue) => match &server.shared.engine {
                None => run(server, kind, (&call, body.len()), cue, is_unlucky(), draws).await,
                Some(engine) => run_in(engine, server, kind, (&call, &body), draws).await,
            },
            Err(failure) => failure.answer(kind),
        },
        None => SimulatedFailure::InvalidBody.answer(kind),
    };
    let request_id = HeaderValue::from_maybe_shared(Bytes::from(format!("req_{request_id:032x}")));
    response.headers_mut().insert(REQUEST_ID.clone(), request_id.expect("hexadecimal digits"));
    response
}

async fn run(
    server: &Arc<SimulatedServer>,
    kind: Kind,
    (call, body_len): (&RequestBody<'_>, usize),
    cue: Option<Cue>,
    is_unlucky: bool,
    mut draws: Draws,
) -> Response {
    let stream = call.stream == Some(true);
    if stream && (kind != Kind::Chat || cue.is_some()) {
        return SimulatedFailure::Streaming.answer(kind);
    }
    let Some(running) = Running::admit(server).await else {
        return SimulatedFailure::TooManyRequests.answer(kind);
    };
    // Always two draws, so that the answer does not depend on the latency.
    let latency = server.shared.args.latency.at(draws.unit(), draws.unit());
    let fate = Fate::of(&call.model, is_unlucky);
    let simulated = SimulatedRequest::new(&call.model, body_len, call.texts(), draws);
    let simulated = simulated.with_schema(call.schema(kind));

    if stream && matches!(fate, Fate::Answer | Fate::Pretty) {
        let wants_usage = call.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true));
        return streamed(running, answers::chat_events(simulated, wants_usage), latency);
    }
    if fate == Fate::Hang {
        server.closing.cancelled().await;
        return SimulatedFailure::ShuttingDown.answer(kind);
    }
    server.pause(latency).await;
    let answer = || match &cue {
        Some(cue) => scripted::answer(kind, simulated, cue),
        None => answers::answer(kind, simulated),
    };
    match fate {
        Fate::Fail(failure) => failure.answer(kind),
        Fate::Html => Html("<!doctype html>\n<html><body><h1>It works!</h1></body></html>\n").into_response(),
        Fate::Pretty => json_text(indented(&answer())),
        Fate::Answer | Fate::Hang => json_text(answer()),
    }
}

/// Answers as a server with continuous batching does. Scripts have no effect.
async fn run_in(
    engine: &Engine,
    server: &Arc<SimulatedServer>,
    kind: Kind,
    (call, body): (&RequestBody<'_>, &[u8]),
    mut draws: Draws,
) -> Response {
    let running = Running::enter(server, None);
    let (median, sigma) = engine.scenario().output_tokens;
    let most = call.max_completion_tokens.or(call.max_tokens).unwrap_or(MOST_OUTPUT);
    let drawn = Latency::Lognormal { median: Duration::from_secs_f64(median.max(0.0)), sigma };
    // Seconds stand for tokens here.
    let drawn = u32::try_from(drawn.at(draws.unit(), draws.unit()).as_secs()).unwrap_or(u32::MAX);
    let output = drawn.clamp(1, most.max(1));
    let simulated = SimulatedRequest::new(&call.model, body.len(), call.texts(), draws);
    let simulated = simulated.with_schema(call.schema(kind));
    let row = SimulatedRow {
        prompt: f64::from(u32::try_from(simulated.prompt_tokens()).unwrap_or(u32::MAX)),
        cached: 0.0,
        output: f64::from(output),
        most_output: f64::from(most),
    };
    let EngineAnswer { reply, status, cached } = engine.answer(body, row).await;
    let mut response = match reply.status {
        CallStatus::Answered if call.stream == Some(true) && kind == Kind::Chat => {
            let wants_usage = call.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true));
            let simulated = simulated.with_work(output, cached);
            return streamed(running, answers::chat_events(simulated, wants_usage), Duration::ZERO);
        }
        CallStatus::Answered => json_text(answers::answer(kind, simulated.with_work(output, cached))),
        CallStatus::Refused => SimulatedFailure::TooManyRequests.answer(kind),
        CallStatus::Unavailable | CallStatus::NoConnection => SimulatedFailure::scripted(status).answer(kind),
    };
    response.headers_mut().remove(header::RETRY_AFTER);
    if let Some(pause) = reply.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, whole_seconds(Duration::from_secs_f64(pause)));
    }
    if let Some(RateLimit { limit, remaining, reset }) = reply.tokens {
        let reset = HeaderValue::try_from(format!("{}ms", reset.as_millis())).expect("digits");
        for (name, value) in TOKEN_LIMITS.iter().zip([limit.into(), remaining.into(), reset]) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    response
}

/// A time in whole seconds, at least 1.
fn whole_seconds(time: Duration) -> HeaderValue {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    seconds.max(1).into()
}

/// Sends the events one by one, evenly spread over the latency.
fn streamed(running: Running, events: Vec<String>, latency: Duration) -> Response {
    let pace = latency / u32::try_from(events.len()).unwrap_or(u32::MAX).max(1);
    // The stream owns `running`, so a client that goes away in the middle frees its slot.
    let frames = stream::unfold((events.into_iter(), running), move |(mut events, running)| async move {
        let event = events.next()?;
        running.server.pause(pace).await;
        Some((Ok::<_, Infallible>(Bytes::from(event)), (events, running)))
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
    (StatusCode::OK, headers, Body::from_stream(frames)).into_response()
}

fn json_text(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn indented(json: &str) -> String {
    let value: Value = serde_json::from_str(json).expect("answers are JSON");
    format!("{value:#}\n")
}

impl SimulatedServer {
    /// Waits for `length`, or until the server stops.
    async fn pause(&self, length: Duration) {
        if !length.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(length) => {}
                () = self.closing.cancelled() => {}
            }
        }
    }
}

/// A request in flight. Dropped when it is answered, or when its client goes away.
struct Running {
    server: Arc<SimulatedServer>,
    /// None without `--max-parallel`, and while the request waits for its turn.
    slot: Option<OwnedSemaphorePermit>,
}

impl Running {
    /// Waits for a slot; `None` if the server is full and rejects requests.
    async fn admit(server: &Arc<SimulatedServer>) -> Option<Self> {
        let Some(slots) = &server.shared.slots else {
            return Some(Self::enter(server, None));
        };
        let slots = Arc::clone(slots);
        match server.shared.args.overload {
            Overload::Reject => slots.try_acquire_owned().ok().map(|slot| Self::enter(server, Some(slot))),
            Overload::Queue => {
                // The request is in flight from here on, so that a client that leaves while it waits is uncounted.
                let mut running = Self::enter(server, None);
                running.slot = Some(slots.acquire_owned().await.expect("the semaphore is never closed"));
                Some(running)
            }
        }
    }

    fn enter(server: &Arc<SimulatedServer>, slot: Option<OwnedSemaphorePermit>) -> Self {
        server.shared.stats.entered();
        Self { server: Arc::clone(server), slot }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Free the slot first: an observer of the lower count may rely on a free slot.
        self.slot = None;
        self.server.shared.stats.left();
    }
}

/// The members of a request body that the simulator reads. Borrows from the body.
#[derive(Deserialize)]
struct RequestBody<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    /// The texts of embeddings and moderations.
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    /// The texts to score, and the documents to rank.
    #[serde(borrow)]
    text_2: Option<&'a RawValue>,
    #[serde(borrow)]
    documents: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

impl<'a> RequestBody<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        // Derived deserializers accept an array in place of an object; a server must not.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    /// Checks the request as a server does that has these models, or any if there are none.
    fn check(&self, kind: Kind, models: &[String]) -> Result<(), SimulatedFailure> {
        if !models.is_empty() && !models.iter().any(|model| *model == self.model) {
            return Err(SimulatedFailure::UnknownModel(self.model.to_string()));
        }
        if kind == Kind::Message && self.max_tokens.is_none() {
            return Err(SimulatedFailure::InvalidMember {
                param: "max_tokens".to_owned(),
                code: "missing_required_parameter",
                message: "max_tokens: Field required".to_owned(),
            });
        }
        if matches!(kind, Kind::Chat | Kind::Message) { messages::check(self.messages) } else { Ok(()) }
    }

    /// The texts that the answer has something about, one by one, as JSON.
    fn texts(&self) -> Option<&'a str> {
        self.input.or(self.text_2).or(self.documents).map(RawValue::get)
    }

    /// The schema that the text of the answer has to match.
    fn schema(&self, kind: Kind) -> Option<Value> {
        shaped::schema(kind, self.response_format, self.text)
    }
}

/// How a request is answered.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answer,
    Pretty,
    Html,
    Hang,
    Fail(SimulatedFailure),
}

impl Fate {
    fn of(model: &str, is_unlucky: bool) -> Self {
        match model.strip_prefix("simulator-") {
            Some("fail-400") => Self::Fail(SimulatedFailure::InvalidModel),
            Some("fail-429") => Self::Fail(SimulatedFailure::TooManyRequests),
            Some("fail-500") => Self::Fail(SimulatedFailure::ServerError),
            Some("hang") => Self::Hang,
            _ if is_unlucky => Self::Fail(SimulatedFailure::ServerError),
            Some("html") => Self::Html,
            Some("pretty") => Self::Pretty,
            _ => Self::Answer,
        }
    }
}

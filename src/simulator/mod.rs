//! A simulated inference server: real HTTP, random answers, and failures on request.
//!
//! What a request gets (its latency, whether it fails, the text, the token counts) depends only on the seed, the
//! bytes of its body and how often its `Idempotency-Key` was seen before, never on the order of arrival. Whether it
//! fails also depends on the key. A request that asks for JSON, or for a JSON schema, gets a text in that shape. Some
//! models have a fixed behaviour:
//!
//! | model                | what a request for it gets                                 |
//! |----------------------|------------------------------------------------------------|
//! | `simulator-fail-400` | always 400, `invalid_request_error`                        |
//! | `simulator-fail-429` | always 429 with `Retry-After: 1`                           |
//! | `simulator-fail-500` | always 500, `server_error`                                 |
//! | `simulator-pretty`   | its answer as JSON over many lines                         |
//! | `simulator-html`     | 200 with an HTML page, as a misplaced proxy would answer   |
//! | `simulator-hang`     | no answer until the client goes away or the server stops   |
//!
//! Besides OpenAI's endpoints it has `/v1/messages`, `/v1/score`, `/v1/rerank` and `/v2/rerank`, `/pooling`,
//! `/classify` and `/v1/classify`.
//!
//! # Scripts
//!
//! If a message of the user begins with `simulate:`, the rest of it is JSON that determines the answers from there on,
//! for chat completions and responses. The last such message counts; other messages of the user have no effect.
//!
//! ```text
//! simulate:{"turns": [[{"name": "add", "arguments": {"a": 1}}, {"name": "mul", "arguments": "not JSON"}],
//!                     [{"name": "add", "arguments": {"a": 2}}]], "answer": "done"}
//! ```
//!
//! | member | what it does |
//! |---|---|
//! | `turns` | the tools to call: all of the first array, then, when they have been answered, those of the next |
//! | `endless` | the last turn comes again and again |
//! | `answer` | the text after the last turn; by default all outputs in the order of their calls, joined by `" \| "` |
//! | `answers` | in place of `answer`: one text for each answer of the conversation; the last text is repeated |
//! | `refuse` | a refusal after the last turn, in place of a text |
//! | `reasoning` | reasoning before each turn and answer |
//! | `fail` | statuses instead of answers: `{"1": 500}` fails the model's second answer, with or without calls |
//! | `fail_once` | the same, but not if the `Idempotency-Key` was seen before |
//!
//! `arguments` that are a string are passed on as they are. A call may have an `id`; otherwise it follows from the seed
//! and the body, so that it is the same when a request is sent again. As with strict servers, every call of the
//! conversation must have exactly one output before the model speaks again, and arguments that are a JSON object.
//! Answers by a script always say that some of their tokens were cached, written to a cache, and reasoning.
//!
//! Reading order: [`Latency`], `draws`, `stats`, `handlers`, `messages`, `answers`, `other_apis`, `shaped`, `failure`;
//! for scenarios `scenario`, `batching`, `prefix_cache`, `engine`; then the scripts: `conversation`, `script`,
//! `scripted`.

mod answers;
pub mod batching;
mod conversation;
mod draws;
mod engine;
mod failure;
mod handlers;
mod latency;
mod messages;
mod other_apis;
mod prefix_cache;
mod scenario;
mod script;
mod scripted;
mod shaped;
mod stats;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use engine::Engine;

pub use latency::{Latency, LatencyError};
pub use scenario::{Scenario, ScenarioChange};
pub use stats::StatsSnapshot;

/// How the simulator behaves.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct SimulatorArgs {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS", default_value_t = SimulatorArgs::default().listen)]
    pub listen: SocketAddr,

    /// How long a request takes: a duration such as `50ms`, or `lognormal:MEDIAN:SIGMA` such as `lognormal:500ms:0.5`,
    /// where about two thirds of the requests take between MEDIAN / e^SIGMA and MEDIAN * e^SIGMA. `0ms` answers at
    /// once.
    #[arg(long, value_name = "LATENCY", default_value_t = SimulatorArgs::default().latency)]
    pub latency: Latency,

    /// Requests that run at the same time; unlimited if not given.
    #[arg(long, value_name = "N")]
    pub max_parallel: Option<NonZeroUsize>,

    /// What happens to requests beyond `--max-parallel`.
    #[arg(long, value_enum, default_value_t = SimulatorArgs::default().overload)]
    pub overload: Overload,

    /// Models that the server has, such as `a,b`; any if not given. A request for another is answered 404.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub models: Vec<String>,

    /// Share of requests answered with HTTP 500, from 0 to 1. Each `Idempotency-Key`, and each retry with it, draws
    /// anew.
    #[arg(long, value_name = "SHARE", value_parser = parse_share, default_value_t = SimulatorArgs::default().fail_rate)]
    pub fail_rate: f64,

    /// Seed of everything drawn by chance: the same seed and the same requests give the same answers.
    #[arg(long, value_name = "N", default_value_t = SimulatorArgs::default().seed)]
    pub seed: u64,

    /// A file in TOML that describes a server with continuous batching, instead of `--latency` and `--max-parallel`:
    /// its slots, KV cache, limits in time, and changes on a timetable (README).
    #[arg(long, value_name = "FILE", value_parser = |path: &str| Scenario::read(Path::new(path)))]
    pub scenario: Option<Scenario>,

    /// Answer 404 for `/v1/responses`, as a server without the Responses API does.
    #[arg(long)]
    pub no_responses: bool,
}

impl Default for SimulatorArgs {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            latency: Latency::Constant(Duration::from_millis(50)),
            max_parallel: None,
            overload: Overload::Queue,
            models: Vec::new(),
            fail_rate: 0.0,
            seed: 0,
            scenario: None,
            no_responses: false,
        }
    }
}

/// What happens to requests that arrive while the server is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overload {
    /// They wait for their turn, first come first served.
    Queue,
    /// They are answered 429 with `Retry-After: 1`.
    Reject,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1, such as 0.01".to_owned()),
    }
}

/// One simulated server: its behaviour and its counters. Clones are the same server.
#[derive(Clone)]
pub struct Simulator {
    shared: Arc<SimulatorState>,
}

/// What all requests share.
struct SimulatorState {
    args: SimulatorArgs,
    /// One permit for each request that may run at the same time.
    slots: Option<Arc<Semaphore>>,
    /// None without a scenario.
    engine: Option<Engine>,
    stats: stats::Stats,
}

impl Simulator {
    /// A server that has seen no request.
    #[must_use]
    pub fn new(args: SimulatorArgs) -> Self {
        let slots = args.max_parallel.map(|most| Arc::new(Semaphore::new(most.get().min(Semaphore::MAX_PERMITS))));
        let engine = args.scenario.clone().map(Engine::new);
        Self { shared: Arc::new(SimulatorState { args, slots, engine, stats: stats::Stats::new() }) }
    }

    /// All routes of the server.
    pub fn router(&self) -> Router {
        handlers::router(Arc::clone(&self.shared), CancellationToken::new())
    }

    /// The counters of the server, as `GET /stats` gives them.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        self.shared.stats.snapshot()
    }
}

/// Serves until `shutdown` resolves. Then every wait ends at once, requests that were running are answered, and
/// connections are closed.
///
/// # Errors
/// The listener failed for good.
pub async fn serve(
    listener: TcpListener,
    simulator: Simulator,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    // A small answer must not wait for the acknowledgement of the previous one. Without the option it is only slower.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set on a connection");
        }
    });
    let closing = CancellationToken::new();
    let router = handlers::router(simulator.shared, closing.clone());
    let closed = async move {
        shutdown.await;
        closing.cancel();
    };
    axum::serve(listener, router).with_graceful_shutdown(closed).await
}

#[cfg(test)]
mod tests;

//! An inference server that does as it is told, and remembers every request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response};
use futures::stream::{self, StreamExt as _};
use tokio::net::TcpSocket;
use tokio::sync::{Barrier, watch};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How many requests with the same `Idempotency-Key` came before.
    pub attempt: usize,
    pub arrived: Instant,
}

impl Call {
    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("headers are ASCII"))
    }

    pub fn key(&self) -> &str {
        self.header("idempotency-key")
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Whether this is the request of a row made by [`super::builders::line`].
    pub fn is_of(&self, custom_id: &str) -> bool {
        self.text().contains(&format!("Hello from {custom_id}\""))
    }
}

/// An answer to be given.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    is_held: bool,
    group: Option<Arc<Barrier>>,
    delay: Duration,
    /// What comes after the body.
    end: End,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Whole,
    Never,
    Broken,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            is_held: false,
            group: None,
            delay: Duration::ZERO,
            end: End::Whole,
        }
    }

    /// A complete chat answer that used 3 tokens and gave 2.
    pub fn ok() -> Self {
        Self::new(
            200,
            concat!(
                r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"#,
                r#""message":{"role":"assistant","content":"Hi"},"logprobs":null,"finish_reason":"stop"}],"#,
                r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#
            ),
        )
    }

    /// A chat answer with this text.
    pub fn chat(text: &str) -> Self {
        let message = serde_json::json!({ "role": "assistant", "content": text });
        let choice = serde_json::json!({ "index": 0, "message": message, "finish_reason": "stop" });
        Self::new(200, serde_json::json!({ "object": "chat.completion", "choices": [choice] }).to_string())
    }

    /// Whether it is a success.
    /// A stream of events with this data.
    pub fn events<T: AsRef<str>>(data: impl IntoIterator<Item = T>) -> Self {
        let events: Vec<String> = data.into_iter().map(|data| format!("data: {}\n\n", data.as_ref())).collect();
        Self::new(200, events.concat()).header("content-type", "text/event-stream")
    }

    /// The same, with a connection that stays open after the last byte, without another.
    pub fn without_end(self) -> Self {
        Self { end: End::Never, ..self }
    }

    /// The same, with a connection that breaks after the last byte.
    pub fn broken_off(self) -> Self {
        Self { end: End::Broken, ..self }
    }

    pub fn is_ok(&self) -> bool {
        self.status == 200
    }

    pub fn error(status: u16) -> Self {
        Self::new(status, r#"{"error":{"message":"No.","type":"server_error","param":null,"code":null}}"#)
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Given only once [`FakeUpstream::release`] is called.
    pub fn held(mut self) -> Self {
        self.is_held = true;
        self
    }

    /// Given only once as many requests wait for it as make up the group.
    pub fn with_others(mut self, group: &Arc<Barrier>) -> Self {
        self.group = Some(group.clone());
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// The server. It lives as long as the test's runtime.
pub struct FakeUpstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// The port, while nothing listens on it: connections are refused, and nobody else can have it.
    socket: Option<TcpSocket>,
}

struct Shared {
    script: Mutex<Script>,
    calls: Mutex<Vec<Call>>,
    /// The GET requests, which are for lists of models.
    lists: Mutex<Vec<Call>>,
    attempts: Mutex<HashMap<String, usize>>,
    running: AtomicUsize,
    peak: AtomicUsize,
    aborted: AtomicUsize,
    is_released: watch::Sender<bool>,
}

impl FakeUpstream {
    /// A server that answers every request with [`Reply::ok`], until told otherwise.
    pub fn start() -> Self {
        let mut upstream = Self::down();
        upstream.listen();
        upstream
    }

    /// A server that refuses connections, until [`FakeUpstream::listen`].
    pub fn down() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let shared = Shared {
            script: Mutex::new(Arc::new(|_: &Call| Reply::ok())),
            calls: Mutex::default(),
            lists: Mutex::default(),
            attempts: Mutex::default(),
            running: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            is_released: watch::Sender::new(false),
        };
        let address = socket.local_addr().expect("the socket is bound");
        Self { address, shared: Arc::new(shared), socket: Some(socket) }
    }

    pub fn listen(&mut self) {
        let socket = self.socket.take().expect("it does not listen");
        let listener = socket.listen(1024).expect("the port can be listened on");
        let router = Router::new().fallback(answer).with_state(self.shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// Decides every answer from now on.
    pub fn reply(&self, script: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.script) = Arc::new(script);
    }

    /// Gives the answers that are held, and holds none any more.
    pub fn release(&self) {
        self.shared.is_released.send_replace(true);
    }

    /// Every request for a row so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.calls).clone()
    }

    /// Every request for the list of models so far, of which one comes at the start.
    pub fn lists(&self) -> Vec<Call> {
        lock(&self.shared.lists).clone()
    }

    /// Requests that have not been answered.
    pub fn running(&self) -> usize {
        self.shared.running.load(SeqCst)
    }

    /// The most requests that were unanswered at any time.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(SeqCst)
    }

    /// Requests whose client went away before the answer.
    pub fn aborted(&self) -> usize {
        self.shared.aborted.load(SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let mut running = Running::enter(shared.clone());
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("the request arrives whole");
    let mut call =
        Call { path: head.uri.path().to_owned(), headers: head.headers, body, attempt: 0, arrived: Instant::now() };
    let times = *lock(&shared.attempts).entry(call.key().to_owned()).and_modify(|times| *times += 1).or_insert(1);
    call.attempt = times - 1;
    let script = lock(&shared.script).clone();
    let reply = script(&call);
    let is_list = head.method == Method::GET;
    lock(if is_list { &shared.lists } else { &shared.calls }).push(call);
    if reply.is_held {
        let _ = shared.is_released.subscribe().wait_for(|is_released| *is_released).await;
    }
    if let Some(group) = reply.group {
        group.wait().await;
    }
    tokio::time::sleep(reply.delay).await;
    running.is_answered = true;
    let mut response = Response::builder().status(reply.status);
    if !reply.headers.iter().any(|(name, _)| *name == "content-type") {
        response = response.header("content-type", "application/json");
    }
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let sent = stream::iter([Ok(reply.body.clone())]);
    let body = match reply.end {
        End::Whole => Body::from(reply.body),
        End::Never => Body::from_stream(sent.chain(stream::pending())),
        End::Broken => Body::from_stream(sent.chain(stream::iter([Err(std::io::Error::other("broken off"))]))),
    };
    response.body(body).expect("the reply is HTTP")
}

/// A request that is not answered. Dropped without an answer if its client goes away.
struct Running {
    shared: Arc<Shared>,
    is_answered: bool,
}

impl Running {
    fn enter(shared: Arc<Shared>) -> Self {
        let running = shared.running.fetch_add(1, SeqCst) + 1;
        shared.peak.fetch_max(running, SeqCst);
        Self { shared, is_answered: false }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, SeqCst);
        if !self.is_answered {
            self.shared.aborted.fetch_add(1, SeqCst);
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the lock")
}

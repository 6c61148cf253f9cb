//! The server: connections with bounds in number and in time, and their end.
//!
//! hyper reads and writes HTTP/1.1. What a client can hold up is timed here: heads and answers by [`io::TimedIo`],
//! bodies by [`body::TimedBody`].

mod body;
mod connection;
mod io;
mod limits;
mod refusal;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

pub(super) use body::BodyCut;
pub use limits::ServerLimits;

use body::{ResponseBody, TimedBody};
use connection::{ConnectionGuard, OpenConnections};
use io::TimedIo;

use crate::sync::lock;

/// The request line and the headers. A URL of 64 KiB is read, so that its refusal can say what is wrong.
const HEAD_BYTES: usize = 128 << 10;
/// What hyper holds of a body that is read and of an answer that is not: less than one read of a download is then all
/// that waits for a client.
const BUFFER_BYTES: usize = 128 << 10;
/// What the kernel holds of answers for each connection is twice this.
const SEND_BUFFER_BYTES: usize = 512 << 10;
/// Out of file descriptors: some get free as connections end.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// How long to wait for a place before another connection is made to give up its own.
const EVICT_AGAIN: Duration = Duration::from_millis(200);
/// How often the log says that there are as many connections as may be.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The end of a server, step by step. Each is cancelled once.
#[derive(Debug, Clone, Default)]
pub struct ShutdownTokens {
    /// What has not been sent yet, and what nobody reads, is waited for only [`ServerLimits::farewell`].
    pub stopping: CancellationToken,
    /// No more connections and requests are taken; those that are being answered go on.
    pub closing: CancellationToken,
    /// Every connection ends where it stands.
    pub cut: CancellationToken,
}

/// Serves until [`ShutdownTokens::closing`], and returns when the last connection has ended.
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, stop: ShutdownTokens) {
    let server = Arc::new(Server { router, limits, stop });
    let (connections, tasks) = (Acceptor::new(limits), TaskTracker::new());
    while let Some((stream, slot)) = connections.next(&listener, &server.stop.closing).await {
        tasks.spawn(server.clone().answer(stream, slot));
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

struct Server {
    router: Router,
    limits: ServerLimits,
    stop: ShutdownTokens,
}

/// The slots that connections may take.
struct Acceptor {
    open: Arc<OpenConnections>,
    slots: Arc<Semaphore>,
    new: Duration,
    warned: Mutex<Option<Instant>>,
}

/// The right to one of the limited connections; dropping it makes room for another.
struct ConnectionSlot {
    guard: ConnectionGuard,
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    fn new(limits: ServerLimits) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections));
        Self { open: Arc::default(), slots, new: limits.new, warned: Mutex::default() }
    }

    /// The next connection, once there is a place for it; nothing once the server closes.
    async fn next(&self, listener: &TcpListener, closing: &CancellationToken) -> Option<(TcpStream, ConnectionSlot)> {
        closing.run_until_cancelled(self.accept(listener)).await
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, ConnectionSlot) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are small and clients wait for them: no delay for fuller packets.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection keeps its delay");
                    }
                    // Bounds what a client that does not read costs, and lets one that reads slowly be told from it: a
                    // socket can be written again only once a third of its buffer is free.
                    if let Err(error) = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES) {
                        tracing::debug!(%error, "a connection keeps its buffer");
                    }
                    return (stream, self.slot().await);
                }
                // The client has gone before it was accepted.
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    self.open.evict(self.new);
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    async fn slot(&self) -> ConnectionSlot {
        loop {
            if let Ok(permit) = self.slots.clone().try_acquire_owned() {
                return ConnectionSlot { guard: self.open.enter(), _permit: permit };
            }
            self.warn();
            self.open.evict(self.new);
            // Soon if one was evicted; if all are being answered, one of them may be through.
            if let Ok(permit) = timeout(EVICT_AGAIN, self.slots.clone().acquire_owned()).await {
                let permit = permit.expect("the semaphore is never closed");
                return ConnectionSlot { guard: self.open.enter(), _permit: permit };
            }
        }
    }

    fn warn(&self) {
        let now = Instant::now();
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|last| now - last > WARN_EVERY) {
            *warned = Some(now);
            tracing::warn!(
                "as many connections are open as may be; a new one takes the place of one without a request"
            );
        }
    }
}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Server {
    /// Answers the requests of one connection, until either side has enough.
    async fn answer(self: Arc<Self>, stream: TcpStream, slot: ConnectionSlot) {
        let (limits, stopping) = (self.limits, &self.stop.stopping);
        let state = slot.guard.connection.clone();
        let service = service_fn(|request: Request<Incoming>| {
            let answering = state.begin();
            let request = request.map(|body| Body::new(TimedBody::new(body, limits, stopping.clone())));
            let response = self.router.clone().oneshot(request);
            async move {
                let response = response.await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(response.map(|body| ResponseBody { body, _answering: answering }))
            }
        });
        let io = TimedIo::new(stream, state.clone(), limits, stopping.clone());
        let connection = http1::Builder::new()
            // The time-outs are those of the IO.
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cut.cancelled() => return,
            () = async {
                tokio::select! {
                    () = state.evicted.cancelled() => {}
                    () = self.stop.closing.cancelled() => {}
                }
            } => {
                connection.as_mut().graceful_shutdown();
                // No request has come whole: there is nothing to wait for. One that came meanwhile is answered.
                if state.is_quiet() {
                    return;
                }
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.stop.cut.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = crate::telemetry::chain(&error), "a connection broke off");
        }
    }
}

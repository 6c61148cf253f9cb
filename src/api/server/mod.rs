//! The server: connections with bounds in number and in time, and their end.
//!
//! hyper reads and writes HTTP/1.1. The timeouts for slow clients are here: for request heads and responses in
//! [`io::TimedIo`], for request bodies in [`body::TimedBody`].

mod body;
mod connection;
mod io;
mod limits;
mod refusal;
mod remainder;
mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use axum::response::Response;
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::ServiceExt as _;

pub(super) use body::BodyCut;
pub use limits::ServerLimits;
pub use tls::{ServerTls, TlsError};

use body::{ResponseBody, TimedBody};
use connection::{Connection, ConnectionGuard, OpenConnections};
use io::TimedIo;
use remainder::shared;

use crate::sync::lock;
use crate::telemetry::chain;

/// Bytes of the request line and the headers. URLs beyond the limit are read too, so that their refusal can say what is
/// wrong.
const HEAD_BYTES: usize = 128 << 10;
/// Bytes that hyper buffers of a request body and of a response: less than one read of a download.
const BUFFER_BYTES: usize = 128 << 10;
/// Bytes of a response in the kernel's buffer; the kernel uses twice this value.
const SEND_BUFFER_BYTES: usize = 512 << 10;
/// The pause after a failed accept, such as without file descriptors: some are freed as connections end.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// How long to wait for a slot before another connection is evicted.
const EVICT_AGAIN: Duration = Duration::from_millis(200);
/// How often the log says that all slots are taken.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The steps of a shutdown. Each token is cancelled once, in this order.
#[derive(Debug, Clone, Default)]
pub struct ShutdownTokens {
    /// The server waits only [`ServerLimits::farewell`] for the rest of request bodies and for unread responses.
    pub stopping: CancellationToken,
    /// The server takes no more connections and requests. Requests that are being answered continue.
    pub closing: CancellationToken,
    /// The server closes every connection at once.
    pub cut: CancellationToken,
}

/// Serves until [`ShutdownTokens::closing`], and returns when the last connection has ended. With a certificate,
/// clients talk by TLS.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    stop: ShutdownTokens,
    tls: Option<ServerTls>,
) {
    let tls = tls.map(Arc::new);
    let _following = tls.clone().map(|tls| AbortOnDropHandle::new(tokio::spawn(tls.follow())));
    let server = Arc::new(ApiServer { router, limits, stop, tls, tasks: TaskTracker::new() });
    let connections = Acceptor::new(limits);
    while let Some((stream, slot)) = connections.next(&listener, &server.stop.closing).await {
        server.tasks.spawn(server.clone().answer(stream, slot));
    }
    drop(listener);
    server.tasks.close();
    server.tasks.wait().await;
}

struct ApiServer {
    router: Router,
    limits: ServerLimits,
    stop: ShutdownTokens,
    tls: Option<Arc<ServerTls>>,
    /// The connections, and the requests that go on without one.
    tasks: TaskTracker,
}

/// Accepts connections, as many as there are slots.
struct Acceptor {
    open: Arc<OpenConnections>,
    slots: Arc<Semaphore>,
    new: Duration,
    warned: Mutex<Option<Instant>>,
}

/// The right to one of the limited connections. Another has room once this and all shares of its permit are dropped.
struct ConnectionSlot {
    guard: ConnectionGuard,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Acceptor {
    fn new(limits: ServerLimits) -> Self {
        let slots = Arc::new(Semaphore::new(limits.connections));
        Self { open: Arc::default(), slots, new: limits.new, warned: Mutex::default() }
    }

    /// The next connection, once there is a slot for it; none once the server closes.
    async fn next(&self, listener: &TcpListener, closing: &CancellationToken) -> Option<(TcpStream, ConnectionSlot)> {
        closing.run_until_cancelled(self.accept(listener)).await
    }

    async fn accept(&self, listener: &TcpListener) -> (TcpStream, ConnectionSlot) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    set_options(&stream);
                    return (stream, self.slot().await);
                }
                // The client left before it was accepted.
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
                return ConnectionSlot { guard: self.open.enter(), permit: Arc::new(permit) };
            }
            self.warn();
            self.open.evict(self.new);
            // An evicted connection frees its slot soon; without one, a request that ends may free a slot.
            if let Ok(permit) = timeout(EVICT_AGAIN, self.slots.clone().acquire_owned()).await {
                let permit = permit.expect("the semaphore is never closed");
                return ConnectionSlot { guard: self.open.enter(), permit: Arc::new(permit) };
            }
        }
    }

    fn warn(&self) {
        let now = Instant::now();
        let mut warned = lock(&self.warned);
        if warned.is_none_or(|last| now - last > WARN_EVERY) {
            *warned = Some(now);
            tracing::warn!("all connection slots are taken; a new connection replaces one without a request");
        }
    }
}

fn set_options(stream: &TcpStream) {
    // Responses are small and clients wait for them: do not delay them for fuller packets.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    // A small buffer bounds the memory of a client that does not read. It also tells such a client from a slow one: a
    // socket becomes writable only once a third of its buffer is free.
    if let Err(error) = SockRef::from(stream).set_send_buffer_size(SEND_BUFFER_BYTES) {
        tracing::debug!(%error, "a connection keeps its buffer");
    }
}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl ApiServer {
    /// Answers the requests of one connection, until either side ends it.
    async fn answer(self: Arc<Self>, stream: TcpStream, slot: ConnectionSlot) {
        let state = &slot.guard.connection;
        // A client that is gone already has no address, and is then nobody's peer.
        let peer = stream.peer_addr().ok().map(ConnectInfo);
        match &self.tls {
            None => self.answer_on(stream, peer, &slot).await,
            Some(tls) => {
                let Some(stream) = self.handshake(tls, stream, state).await else { return };
                self.answer_on(stream, peer, &slot).await;
            }
        }
    }

    /// Begins TLS. A client has as long for it as for the head of a request, and until then its connection waits like
    /// one without a request.
    async fn handshake(&self, tls: &ServerTls, stream: TcpStream, state: &Connection) -> Option<TlsStream<TcpStream>> {
        let shaken = tokio::select! {
            shaken = timeout(self.limits.head, tls.acceptor().accept(stream)) => shaken,
            () = state.evicted.cancelled() => return None,
            () = self.stop.closing.cancelled() => return None,
        };
        match shaken {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => tracing::debug!(error = chain(&error), "a client began no TLS"),
            Err(_) => tracing::debug!("a client was too slow to begin TLS"),
        }
        None
    }

    async fn answer_on<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: Option<ConnectInfo<SocketAddr>>,
        slot: &ConnectionSlot,
    ) {
        let (limits, stopping, state) = (self.limits, &self.stop.stopping, &slot.guard.connection);
        let service = service_fn(|request: Request<Incoming>| {
            let answering = state.begin();
            let (mut head, body) = request.into_parts();
            if let Some(peer) = peer {
                head.extensions.insert(peer);
            }
            let (body, remainder) = shared(TimedBody::new(body, limits, stopping.clone()), &head.headers);
            let response = self.respond(Request::from_parts(head, Body::new(body)), slot);
            async move {
                let mut response = response.await;
                remainder.settle(response.headers_mut()).await;
                Ok::<_, Infallible>(response.map(|body| ResponseBody { body, _answering: answering }))
            }
        });
        let io = TimedIo::new(stream, state.clone(), limits, stopping.clone());
        let connection = http1::Builder::new()
            // `TimedIo` has the timeouts.
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
                // Without a complete request there is nothing to wait for. A request that arrived meanwhile is
                // answered.
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
            tracing::debug!(error = chain(&error), "a connection broke off");
        }
    }

    /// Answers a request. One that may change something goes on if its client leaves, because half of a change would
    /// stay. Meanwhile it counts as a connection.
    async fn respond(&self, request: Request<Body>, slot: &ConnectionSlot) -> Response {
        let is_safe = request.method().is_safe();
        let response =
            self.router.clone().oneshot(request).map(|response| response.unwrap_or_else(|never| match never {}));
        if is_safe {
            return response.await;
        }
        let (cut, permit) = (self.stop.cut.clone(), slot.permit.clone());
        let finished = self.tasks.spawn(async move {
            let _permit = permit;
            cut.run_until_cancelled_owned(response).await
        });
        match finished.await.map_err(JoinError::try_into_panic) {
            Ok(Some(response)) => response,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            // The connection or the program ends at the same moment.
            Ok(None) | Err(Err(_)) => std::future::pending().await,
        }
    }
}

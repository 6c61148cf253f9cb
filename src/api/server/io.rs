//! The byte stream of a connection. It cuts clients that send no request head or do not read their response, and
//! replaces the empty bodies of hyper's own refusals by the error envelope.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::ServerLimits;
use super::connection::Connection;
use super::refusal;

/// How long a client may keep sending after its response, and how long it may pause meanwhile. If the connection were
/// closed earlier, the client's system would discard the response unread. Many clients read it only after they have
/// sent all of a large file. Meanwhile another connection may have the slot.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENT: Duration = Duration::from_secs(1);

/// A connection with bounds.
pub(super) struct TimedIo<S> {
    stream: S,
    connection: Arc<Connection>,
    limits: ServerLimits,
    stopping: CancellationToken,
    head: Option<Pin<Box<Sleep>>>,
    /// The number of requests so far when the first byte of the next head arrived.
    head_begun: Option<u32>,
    unread: Option<Unread>,
    refusal: Option<Bytes>,
    linger: Option<Linger>,
}

/// The state after the last response: bytes that still arrive are thrown away.
struct Linger {
    end: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
}

/// A write that waits for the client to read.
struct Unread {
    limit: Pin<Box<Sleep>>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TimedIo<S> {
    pub(super) fn new(
        stream: S,
        connection: Arc<Connection>,
        limits: ServerLimits,
        stopping: CancellationToken,
    ) -> Self {
        let (head, head_begun, unread, refusal, linger) = (None, None, None, None, None);
        Self { stream, connection, limits, stopping, head, head_begun, unread, refusal, linger }
    }

    /// Notes whether bytes arrived. Ready with an error if the next request took too long.
    fn poll_head(&mut self, cx: &mut Context<'_>, came: bool) -> Poll<io::Error> {
        if !self.connection.is_quiet() {
            self.head = None;
            return Poll::Pending;
        }
        let requests = self.connection.requests();
        let begun = self.head_begun == Some(requests);
        if came {
            if !begun {
                self.head_begun = Some(requests);
                self.head = None;
            }
            return Poll::Pending;
        }
        let limit = if begun || requests == 0 { self.limits.head } else { self.limits.idle };
        let head = self.head.get_or_insert_with(|| Box::pin(sleep(limit)));
        head.as_mut().poll(cx).map(|()| timed_out("no request came"))
    }

    /// Returns the result of a write, or an error if the client has not read for too long.
    fn poll_unread<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let unread = self.unread.get_or_insert_with(|| Unread {
            limit: Box::pin(sleep(self.limits.unread)),
            stopping: Some(Box::pin(self.stopping.clone().cancelled_owned())),
        });
        if unread.stopping.as_mut().is_some_and(|stopping| stopping.as_mut().poll(cx).is_ready()) {
            unread.stopping = None;
            unread.limit = Box::pin(sleep(self.limits.farewell));
        }
        unread.limit.as_mut().poll(cx).map(|()| Err(timed_out("nobody reads the answer")))
    }

    /// Writes a refusal with the envelope instead of hyper's own. `None` if hyper did not write a refusal.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, written: &[u8]) -> Option<Poll<io::Result<()>>> {
        if self.refusal.is_none() && self.connection.is_quiet() {
            self.refusal = refusal::instead_of(written);
        }
        let mut rest = self.refusal.take()?;
        while rest.has_remaining() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &rest);
            match self.poll_unread(cx, written) {
                Poll::Ready(Ok(bytes)) => rest.advance(bytes),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => {
                    self.refusal = Some(rest);
                    return Some(Poll::Pending);
                }
            }
        }
        Some(Poll::Ready(Ok(())))
    }

    /// Reads and drops bytes of the client until it stops sending or the time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self
            .linger
            .get_or_insert_with(|| Linger { end: Box::pin(sleep(LINGER)), silence: Box::pin(sleep(LINGER_SILENT)) });
        if linger.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut room = [0; 8 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    linger.silence.as_mut().reset(Instant::now() + LINGER_SILENT);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.silence.as_mut().poll(cx),
            }
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimedIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        match this.poll_head(cx, read.is_ready()) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(refused) = this.poll_refusal(cx, buf) {
            return refused.map(|refused| refused.map(|()| buf.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.poll_unread(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [only] = bufs
            && let Some(refused) = this.poll_refusal(cx, only)
        {
            return refused.map(|refused| refused.map(|()| only.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.poll_unread(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // TLS has taken bytes that the kernel did not take yet.
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        ready!(this.poll_unread(cx, flushed))?;
        this.connection.flushed();
        // Start the timer for the next request here: the last read was before the response had gone out.
        match this.poll_head(cx, false) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        ready!(this.poll_unread(cx, shut))?;
        this.poll_linger(cx).map(Ok)
    }
}

//! What an answer leaves of its request's body. A short remainder is read, so that the connection can be used again.
//! With a longer one, the answer says that the connection is closed: a client that did not know would send its next
//! request on it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Buf;
use futures::future::poll_fn;
use http_body::{Frame, SizeHint};
use tokio::time::timeout;

use crate::sync::lock;

/// The longest remainder that is read: bodies that come right behind their heads.
const BYTES: usize = 64 << 10;
/// How long to wait for a remainder. The answer waits as long, and no other connection can have this one's slot.
const PATIENCE: Duration = Duration::from_millis(200);

/// The body of a request, shared between its handler and its [`Remainder`].
pub(super) struct SharedBody<B>(Arc<Mutex<B>>);

/// The body of a request, once its handler is done.
pub(super) struct Remainder<B> {
    body: Arc<Mutex<B>>,
    /// Whether the client waits for `100 Continue`, which reading the body would send.
    is_awaited: bool,
}

/// The two views of a body of a request with these headers.
pub(super) fn shared<B>(body: B, headers: &HeaderMap) -> (SharedBody<B>, Remainder<B>) {
    let body = Arc::new(Mutex::new(body));
    (SharedBody(body.clone()), Remainder { body, is_awaited: headers.contains_key(header::EXPECT) })
}

impl<B: HttpBody + Unpin> Remainder<B> {
    /// Reads the remainder, or has the answer say that the connection is closed.
    pub(super) async fn settle(self, answer: &mut HeaderMap) {
        if !self.has_ended() && (self.is_awaited || !self.read().await) {
            answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn has_ended(&self) -> bool {
        lock(&self.body).is_end_stream()
    }

    /// Reads to the end of the body, and returns whether it was reached.
    async fn read(&self) -> bool {
        let is_long = lock(&self.body).size_hint().lower() > BYTES as u64;
        !is_long && timeout(PATIENCE, self.read_all()).await.unwrap_or(false)
    }

    async fn read_all(&self) -> bool {
        let mut bytes = 0;
        while bytes <= BYTES {
            match poll_fn(|cx| Pin::new(&mut *lock(&self.body)).poll_frame(cx)).await {
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Buf::remaining),
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        false
    }
}

impl<B: HttpBody + Unpin> HttpBody for SharedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut *lock(&self.0)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).size_hint()
    }
}

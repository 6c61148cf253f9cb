//! The bodies of requests, which must arrive in time, and of responses, whose ends are noted.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::ServerLimits;
use super::connection::AnsweringGuard;
use crate::causes::causes;

/// Bytes of a body that must arrive in each [`ServerLimits::body`]: 17 bytes a second by default. Without a minimum, a
/// client could keep an upload open for ever with one byte a minute.
const LEAST: usize = 1 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the rest of a request's body is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum BodyCut {
    /// Too few bytes arrived for too long.
    #[error("the client sent too little for {} seconds", .0.as_secs_f32())]
    Silent(Duration),
    /// The service stops.
    #[error("the service stops")]
    Stopping,
}

impl BodyCut {
    /// The cut among the causes of an error, if there is one.
    pub(in crate::api) fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        causes(error).find_map(|cause| cause.downcast_ref()).copied()
    }
}

/// The body of a request. It ends with a [`BodyCut`] if its client sends too little for too long.
///
/// Only the time of waiting for the client counts, not the time that the service takes between two reads.
pub(super) struct TimedBody<B> {
    body: B,
    limits: ServerLimits,
    /// The timer of the current wait for the client, and its start.
    silence: Option<(Pin<Box<Sleep>>, Instant)>,
    /// The time of waiting, and the bytes that arrived, since the last [`LEAST`] bytes were complete.
    waited: Duration,
    came: usize,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    farewell: Option<Pin<Box<Sleep>>>,
}

impl<B> TimedBody<B> {
    pub(super) fn new(body: B, limits: ServerLimits, stopping: CancellationToken) -> Self {
        let stopping = Box::pin(stopping.cancelled_owned());
        Self { body, limits, silence: None, waited: Duration::ZERO, came: 0, stopping, farewell: None }
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<BodyCut> {
        let (limit, farewell) = (self.limits.body, self.limits.farewell);
        let left = limit.saturating_sub(self.waited);
        let (silence, _) = self.silence.get_or_insert_with(|| (Box::pin(sleep(left)), Instant::now()));
        if silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(BodyCut::Silent(limit));
        }
        if self.farewell.is_none() && self.stopping.as_mut().poll(cx).is_ready() {
            self.farewell = Some(Box::pin(sleep(farewell)));
        }
        match &mut self.farewell {
            Some(farewell) => farewell.as_mut().poll(cx).map(|()| BodyCut::Stopping),
            None => Poll::Pending,
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for TimedBody<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.came += frame.data_ref().map_or(0, Bytes::len);
            if let Some((_, since)) = self.silence.take() {
                self.waited += since.elapsed();
            }
            if self.came >= LEAST {
                (self.came, self.waited) = (0, Duration::ZERO);
            }
        }
        // A body that never pauses is never waited for. It must still end once the service stops.
        if (frame.is_pending() || self.farewell.is_some())
            && let Poll::Ready(cut) = self.poll_cut(cx)
        {
            return Poll::Ready(Some(Err(cut.into())));
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a response. Its connection counts as answering until the body is dropped.
pub(super) struct ResponseBody {
    pub(super) body: Body,
    pub(super) _answering: AnsweringGuard,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use futures::FutureExt as _;
    use futures::channel::mpsc;

    use super::*;

    #[tokio::test]
    async fn time_that_the_service_takes_between_two_reads_does_not_count() {
        let (client, arriving) = mpsc::unbounded::<Result<Bytes, Infallible>>();
        let limits = ServerLimits { body: Duration::from_secs(2), ..ServerLimits::default() };
        let mut body = TimedBody::new(Body::from_stream(arriving), limits, CancellationToken::new());
        let mut next = async || {
            let mut frame = Box::pin(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)));
            assert!(frame.as_mut().now_or_never().is_none(), "the client is waited for");
            client.unbounded_send(Ok(Bytes::from_static(b"few"))).expect("it is read");
            frame.await.expect("it goes on").map(|_| ())
        };

        next().await.expect("a frame");
        sleep(limits.body + Duration::from_millis(100)).await;
        next().await.expect("the client was not slow");
    }
}

//! The client that a row calls its upstream with: it makes every call with the row's permit.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::limiter::{Permit, Priority};
use super::{Admission, Call, HttpClient, LoneEntry, RefusalHistory, RowHeaders, Server, UpstreamError};
use crate::domain::outcome::HttpResponse;

/// Is told whenever a row gives up its permit and has one again.
pub trait PermitObserver: Send + Sync {
    /// The row has a permit again.
    fn acquired(&self);
    /// The row has given up its permit, and goes on.
    fn released(&self);
}

/// A client that makes one call of a server at a time, with the permit of one row. Clones share the permit.
///
/// The permit stays with the row from call to call. [`HttpClient::release_permit`] gives it to another row while this
/// one waits for something else, and its next call takes one back, before rows that begin.
///
/// While the server takes no calls, a call is held back, and its row is to be queued again. A row that has an answer to
/// an earlier call can wait instead: [`HttpClient::acquire_permit`] returns once the server takes calls, and holds no
/// permit before.
#[derive(Clone)]
pub struct Session {
    calls: Arc<Calls>,
}

/// What a session begins with.
pub struct SessionStart {
    /// The server that is called.
    pub server: Arc<Server>,
    /// The server's admission of the row's model.
    pub admission: Arc<Admission>,
    /// A permit of the server's limiter.
    pub permit: Permit,
    /// The right to call alone, if [`Admission::enter`] gave it.
    pub entry: Option<LoneEntry>,
    /// What the row's calls before came to.
    pub history: RefusalHistory,
    /// Sent with every call, by a client over HTTP.
    pub headers: RowHeaders,
    /// Is told of the permit.
    pub observer: Option<Arc<dyn PermitObserver>>,
}

struct Calls {
    server: Arc<Server>,
    admission: Arc<Admission>,
    observer: Option<Arc<dyn PermitObserver>>,
    headers: RowHeaders,
    /// Locked while a call is under way.
    row: Mutex<RowCalls>,
}

struct RowCalls {
    permit: Option<Permit>,
    entry: Option<LoneEntry>,
    history: RefusalHistory,
    /// Whether the row has an answer to an earlier call of this session.
    has_answer: bool,
}

impl Session {
    /// A session of a row.
    #[must_use]
    pub fn new(start: SessionStart) -> Self {
        let SessionStart { server, admission, permit, entry, history, headers, observer } = start;
        let row = Mutex::new(RowCalls { permit: Some(permit), entry, history, has_answer: false });
        Self { calls: Arc::new(Calls { server, admission, observer, headers, row }) }
    }

    /// Takes the permit out at the end of the row, if it has one and no call is under way with it, and what the row's
    /// calls came to.
    #[must_use]
    pub fn end(&self) -> (Option<Permit>, RefusalHistory) {
        match self.calls.row.try_lock() {
            Ok(mut row) => {
                row.entry = None;
                (row.permit.take(), row.history)
            }
            Err(_) => (None, RefusalHistory::default()),
        }
    }
}

impl Calls {
    async fn take_permit(&self, row: &mut RowCalls) {
        if row.permit.is_none() {
            row.permit = Some(self.server.limiter().acquire(Priority::Continuing).await);
            self.observer.iter().for_each(|observer| observer.acquired());
        }
    }

    /// Waits for a permit and until the server takes calls, unless the row has no answer yet.
    async fn acquire(&self, row: &mut RowCalls) -> Result<(), UpstreamError> {
        loop {
            self.take_permit(row).await;
            match self.admission.check(row.entry.is_some()) {
                Err(_) if row.has_answer => {
                    self.release(row);
                    self.admission.until_open().await;
                }
                may_begin => return may_begin,
            }
        }
    }

    fn release(&self, row: &mut RowCalls) {
        row.entry = None;
        if row.permit.take().is_some() {
            self.observer.iter().for_each(|observer| observer.released());
        }
    }
}

impl HttpClient for Session {
    async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        let calls = &*self.calls;
        let mut row = calls.row.lock().await;
        calls.take_permit(&mut row).await;
        let admitted = calls.admission.begin(row.entry.is_some())?;
        row.entry.take().into_iter().for_each(LoneEntry::use_up);
        let ended = calls.server.post(&call, &calls.headers, admitted, &mut row.history).await;
        row.has_answer |= ended.is_ok();
        ended
    }

    async fn acquire_permit(&self) -> Result<(), UpstreamError> {
        let mut row = self.calls.row.lock().await;
        self.calls.acquire(&mut row).await
    }

    fn release_permit(&self) {
        if let Ok(mut row) = self.calls.row.try_lock() {
            self.calls.release(&mut row);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use bytes::Bytes;
    use futures::FutureExt as _;

    use super::*;
    use crate::config::Dialect;
    use crate::domain::endpoint::Endpoint;
    use crate::domain::ids::BatchId;
    use crate::domain::time::Clock;
    use crate::upstream::limiter::Limiter;

    /// Answers a call only when it is polled a second time.
    #[derive(Debug, Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl HttpClient for Slow {
        async fn post(&self, _call: Call) -> Result<HttpResponse, UpstreamError> {
            self.0.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            self.0.fetch_sub(1, SeqCst);
            Ok(HttpResponse { status: 200, ..HttpResponse::default() })
        }
    }

    fn call() -> Call {
        Call { endpoint: Endpoint::Responses, key: String::new(), body: Bytes::new() }
    }

    /// A session of a server with so many permits, and the server's limiter.
    fn session(client: &Slow, permits: usize) -> (Session, Limiter) {
        let server = Arc::new(Server::embedded(client.clone(), Dialect::Native, Clock::System));
        let limiter = server.limiter().clone();
        limiter.set_limit(permits);
        let permit = limiter.acquire(Priority::New).now_or_never().expect("it is free");
        let admission = server.admission(&"m".into());
        let (entry, history, observer) = (None, RefusalHistory::default(), None);
        let headers = RowHeaders::of(BatchId::new(), "row");
        (Session::new(SessionStart { server, admission, permit, entry, history, headers, observer }), limiter)
    }

    #[tokio::test]
    async fn a_row_makes_one_call_at_a_time_however_many_it_asks_for() {
        let client = Slow::default();
        let (session, limiter) = session(&client, 2);
        let mut calls = [Box::pin(session.post(call())), Box::pin(session.post(call()))];

        for call in &mut calls {
            assert!(call.as_mut().now_or_never().is_none());
        }
        assert_eq!(client.0.load(SeqCst), 1);

        futures::future::join_all(calls).await;
        assert_eq!(limiter.held(), 1, "the row keeps its permit");
    }

    #[tokio::test]
    async fn a_permit_is_released_between_calls_only_and_taken_back_for_the_next() {
        let client = Slow::default();
        let (session, limiter) = session(&client, 1);
        let mut under_way = Box::pin(session.post(call()));
        assert!(under_way.as_mut().now_or_never().is_none());
        session.release_permit();
        assert_eq!(limiter.held(), 1, "a call is made with it");
        under_way.await.expect("it answers");

        session.release_permit();
        let other = limiter.acquire(Priority::New).now_or_never().expect("it is free");
        let mut next = Box::pin(session.post(call()));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(client.0.load(SeqCst), 0, "it waits for a permit");

        drop(other);
        next.await.expect("it answers");
        assert!(session.end().0.is_some());
        assert_eq!(limiter.held(), 0);
    }
}

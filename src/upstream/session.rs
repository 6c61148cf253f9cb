//! The client that a row calls its upstream with: it makes every call with the row's permit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Mutex;

use super::limiter::{Permit, Priority};
use super::{Call, HttpClient, Server, UpstreamError};
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
#[derive(Clone)]
pub struct Session {
    calls: Arc<Calls>,
}

struct Calls {
    server: Arc<Server>,
    observer: Option<Arc<dyn PermitObserver>>,
    /// Whether the row was let through by itself, so that its first call asks whether the server is back.
    is_alone: AtomicBool,
    /// Locked while a call is under way.
    permit: Mutex<Option<Permit>>,
}

impl Session {
    /// A session of `server` with a permit of its limiter. `is_alone` is what [`Server::enter`] returned for the row.
    #[must_use]
    pub fn new(server: Arc<Server>, permit: Permit, observer: Option<Arc<dyn PermitObserver>>, is_alone: bool) -> Self {
        let (permit, is_alone) = (Mutex::new(Some(permit)), AtomicBool::new(is_alone));
        Self { calls: Arc::new(Calls { server, observer, is_alone, permit }) }
    }

    /// Takes the permit out at the end of the row, if it has one and no call is under way with it.
    #[must_use]
    pub fn take_permit(&self) -> Option<Permit> {
        self.calls.permit.try_lock().ok()?.take()
    }
}

impl Calls {
    async fn acquire(&self, permit: &mut Option<Permit>) {
        if permit.is_none() {
            *permit = Some(self.server.limiter().acquire(Priority::Continuing).await);
            self.observer.iter().for_each(|observer| observer.acquired());
        }
    }
}

impl HttpClient for Session {
    async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        let mut permit = self.calls.permit.lock().await;
        self.calls.acquire(&mut permit).await;
        let is_alone = self.calls.is_alone.load(Relaxed) && self.calls.is_alone.swap(false, Relaxed);
        self.calls.server.post(call, is_alone).await
    }

    async fn acquire_permit(&self) {
        let mut permit = self.calls.permit.lock().await;
        self.calls.acquire(&mut permit).await;
    }

    fn release_permit(&self) {
        if let Some(permit) = self.take_permit() {
            drop(permit);
            self.calls.observer.iter().for_each(|observer| observer.released());
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
        server.set_limit(permits);
        let permit = limiter.acquire(Priority::New).now_or_never().expect("it is free");
        (Session::new(server, permit, None, false), limiter)
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
        assert!(session.take_permit().is_some());
        assert_eq!(limiter.held(), 0);
    }
}

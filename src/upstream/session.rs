//! The client that a row calls its upstream with: it makes every call with the row's permit.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::admission::{CallHistory, LoneEntry, is_doubtful, shows_no_endpoint};
use super::limiter::{Permit, Priority};
use super::route::{Route, RouteUse};
use super::{Call, HttpClient, Registry, ResponsesApi, RowHeaders, UpstreamError};
use crate::domain::endpoint::Endpoint;
use crate::domain::outcome::HttpResponse;

/// Is told whenever a row gives up its permit and has one again.
pub trait PermitObserver: Send + Sync {
    /// The row has a permit again.
    fn acquired(&self);
    /// The row has given up its permit, and goes on.
    fn released(&self);
}

/// A client that makes one call at a time, with the permit of one row. Clones share the permit.
///
/// The permit stays with the row from call to call. [`HttpClient::release_permit`] gives it to another row while this
/// one waits for something else, and its next call takes one back, before rows that begin.
///
/// The row stays at one server as long as that takes its calls, because that server has the beginning of its
/// conversation. A call of another model goes to a server that has that model.
///
/// While no server takes calls of the model, a call is held back, and its row is to be queued again. A row that has an
/// answer to an earlier call can wait instead: [`HttpClient::acquire_permit`] returns once a server takes calls, and
/// holds no permit before.
#[derive(Clone)]
pub struct Session {
    calls: Arc<Calls>,
}

/// What a session begins with.
pub struct SessionStart {
    /// The servers.
    pub registry: Registry,
    /// The row's model.
    pub model: Arc<str>,
    /// A permit of the registry's limiter.
    pub permit: Permit,
    /// The row's place at a server. None if the first call is to find one.
    pub route: Option<RouteUse>,
    /// What the row's calls before came to.
    pub history: CallHistory,
    /// Sent with every call, by a client over HTTP.
    pub headers: RowHeaders,
    /// Is told of the permit.
    pub observer: Option<Arc<dyn PermitObserver>>,
}

struct Calls {
    registry: Registry,
    model: Arc<str>,
    observer: Option<Arc<dyn PermitObserver>>,
    headers: RowHeaders,
    /// Locked while a call is under way.
    row: Mutex<RowCalls>,
}

struct RowCalls {
    permit: Option<Permit>,
    route: Option<RouteUse>,
    /// Where the last call went, while the row has no place at a server.
    last: Option<Route>,
    history: CallHistory,
    /// The number of the server that had the last call of this session; `None` if there was no call.
    called: Option<u32>,
    /// Whether the row has an answer to an earlier call of this session.
    has_answer: bool,
}

impl Session {
    /// A session of a row.
    #[must_use]
    pub fn new(start: SessionStart) -> Self {
        let SessionStart { registry, model, permit, route, history, headers, observer } = start;
        let row = RowCalls { permit: Some(permit), route, last: None, history, called: None, has_answer: false };
        Self { calls: Arc::new(Calls { registry, model, observer, headers, row: Mutex::new(row) }) }
    }

    /// Takes the permit out at the end of the row, if it has one and no call is under way with it, and what the row's
    /// calls came to.
    #[must_use]
    pub fn end(&self) -> (Option<Permit>, CallHistory) {
        match self.calls.row.try_lock() {
            Ok(mut row) => {
                row.route = None;
                (row.permit.take(), row.history)
            }
            Err(_) => (None, CallHistory::default()),
        }
    }

    /// The name of the server that had the row's last call; `None` if there was none, or one is under way.
    #[must_use]
    pub fn upstream(&self) -> Option<String> {
        let row = self.calls.row.try_lock().ok()?;
        let called = row.called?;
        let routes = [row.route.as_ref().map(|at| &at.route), row.last.as_ref()];
        let route = routes.into_iter().flatten().find(|route| route.server.no() == called)?;
        Some(route.server.name().to_string())
    }

    /// [`HttpClient::acquire_permit`] for a call of any model.
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] if no server takes calls of the model and the row has no answer yet.
    pub async fn acquire_permit_for(&self, model: &Arc<str>) -> Result<(), UpstreamError> {
        let mut row = self.calls.row.lock().await;
        self.calls.acquire(&mut row, model).await
    }

    /// What is known of `/v1/responses` of the server that the next call of a model goes to.
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] if no server takes calls of the model.
    pub async fn responses_api(&self, model: &Arc<str>) -> Result<Arc<ResponsesApi>, UpstreamError> {
        let mut row = self.calls.row.lock().await;
        self.calls.take_permit(&mut row).await;
        let route = self.calls.route(&mut row, model)?;
        Ok(route.route.server.responses_api().clone())
    }

    /// Whether the next call of a model is better made through chat completions if it asks for a schema or tools,
    /// because the server ignores them in `/v1/responses`.
    ///
    /// # Errors
    /// [`UpstreamError::HeldBack`] if no server takes calls of the model.
    pub async fn ignores_form(&self, model: &Arc<str>) -> Result<bool, UpstreamError> {
        let mut row = self.calls.row.lock().await;
        self.calls.take_permit(&mut row).await;
        let route = self.calls.route(&mut row, model)?;
        Ok(route.route.server.ignores_form().await)
    }
}

impl Calls {
    async fn take_permit(&self, row: &mut RowCalls) {
        if row.permit.is_none() {
            row.permit = Some(self.registry.limiter().acquire(Priority::Continuing).await);
            self.observer.iter().for_each(|observer| observer.acquired());
        }
    }

    /// The row's place at a server that has the model.
    fn route<'a>(&self, row: &'a mut RowCalls, model: &Arc<str>) -> Result<&'a mut RouteUse, UpstreamError> {
        let has_place = row.route.as_ref().is_some_and(|route| route.model == *model);
        if !has_place {
            row.leave();
            let routes = self.registry.routes(model);
            let found = routes.go_on(row.last.as_ref(), row.history);
            row.route = Some(found.ok_or_else(|| UpstreamError::HeldBack(routes.held_back()))?);
        }
        Ok(row.route.as_mut().expect("it was found"))
    }

    /// Makes a call at the server where the row is, or finds it one.
    async fn post(&self, row: &mut RowCalls, call: &Call) -> Result<HttpResponse, UpstreamError> {
        self.route(row, &call.model)?;
        let RowCalls { route: Some(RouteUse { route, entry, .. }), history, called, .. } = row else {
            unreachable!("it was found")
        };
        let admitted = route.admission.begin(entry.is_some())?;
        *called = Some(route.server.no());
        entry.take().into_iter().for_each(LoneEntry::use_up);
        let Some(body) = route.other_body(call) else {
            return route.server.post(call, &self.headers, admitted, history).await;
        };
        let call = Call { body, ..call.clone() };
        route.server.post(&call, &self.headers, admitted, history).await
    }

    /// The answer of another server, if one has the model and takes the call; otherwise the one there is. An answer
    /// that is final for a row can be its server's own doing.
    async fn second_opinion(&self, row: &mut RowCalls, call: &Call, first: HttpResponse) -> HttpResponse {
        if self.registry.routes(&call.model).len() < 2 {
            return first;
        }
        let before = row.route.as_ref().map(|at| at.route.server.no());
        row.leave();
        let found = self.route(row, &call.model).map(|at| at.route.server.no());
        if found.ok() == before {
            return first;
        }
        let second = Box::pin(self.post(row, call)).await.ok().filter(HttpResponse::is_success);
        if second.is_none() {
            row.called = before;
        }
        second.unwrap_or(first)
    }

    /// Waits for a permit and until a server takes calls of the model, unless the row has no answer yet.
    async fn acquire(&self, row: &mut RowCalls, model: &Arc<str>) -> Result<(), UpstreamError> {
        loop {
            let changed = self.registry.changed();
            self.take_permit(row).await;
            if row.may_call(model) {
                return Ok(());
            }
            row.leave();
            match self.route(row, model).map(drop) {
                Err(_) if row.has_answer => {
                    self.release(row);
                    let routes = self.registry.routes(model);
                    tokio::select! {
                        () = routes.until_open(row.last.as_ref()) => {}
                        () = changed => {}
                    }
                }
                found => return found,
            }
        }
    }

    fn release(&self, row: &mut RowCalls) {
        row.leave();
        if row.permit.take().is_some() {
            self.observer.iter().for_each(|observer| observer.released());
        }
    }
}

impl RowCalls {
    /// Whether the server where the row is takes a call of a model now.
    fn may_call(&self, model: &Arc<str>) -> bool {
        self.route
            .as_ref()
            .is_some_and(|at| at.model == *model && (at.entry.is_some() || at.route.admission.check().is_ok()))
    }

    /// Whether another server is to be asked too. One that lacks `/v1/responses` is called through another API instead.
    fn is_doubtful(&self, call: &Call, response: &HttpResponse) -> bool {
        self.route.as_ref().is_some_and(|RouteUse { route, .. }| {
            let is_other_api = call.endpoint == Endpoint::Responses
                && route.server.responses_api().may_be_tried()
                && shows_no_endpoint(response);
            !is_other_api && is_doubtful(response, route.admission.has_succeeded())
        })
    }

    /// Gives up the place at a server.
    fn leave(&mut self) {
        if let Some(left) = self.route.take() {
            self.last = Some(left.route.clone());
        }
    }
}

impl HttpClient for Session {
    async fn post(&self, call: Call) -> Result<HttpResponse, UpstreamError> {
        let calls = &*self.calls;
        let mut row = calls.row.lock().await;
        calls.take_permit(&mut row).await;
        let ended = calls.post(&mut row, &call).await;
        let ended = match ended {
            Ok(response) if row.is_doubtful(&call, &response) => {
                Ok(calls.second_opinion(&mut row, &call, response).await)
            }
            ended => ended,
        };
        row.has_answer |= ended.is_ok();
        ended
    }

    async fn acquire_permit(&self) -> Result<(), UpstreamError> {
        self.acquire_permit_for(&self.calls.model).await
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
    use serde_json::json;

    use super::*;
    use crate::domain::ids::{BatchId, RequestId};
    use crate::domain::time::Clock;
    use crate::upstream::limiter::Limiter;
    use crate::upstream::{Server, ServerSettings};

    /// Answers a call only when it is polled a second time.
    #[derive(Debug, Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl HttpClient for Slow {
        async fn post(&self, _call: Call) -> Result<HttpResponse, UpstreamError> {
            self.0.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            self.0.fetch_sub(1, SeqCst);
            Ok(HttpResponse::json(200, &json!({ "output": [] })))
        }
    }

    fn call() -> Call {
        Call { endpoint: Endpoint::Responses, model: "m".into(), key: String::new(), body: Bytes::new(), file: None }
    }

    /// A session of a server with so many permits, and the server's limiter.
    fn session(client: &Slow, permits: usize) -> (Session, Limiter) {
        let server = Server::embedded(client.clone(), ServerSettings::default(), Clock::System);
        let registry = Registry::of(server);
        registry.set_limit(permits);
        let limiter = registry.limiter().clone();
        let permit = limiter.acquire(Priority::New).now_or_never().expect("it is free");
        let (route, history, observer) = (None, CallHistory::default(), None);
        let (model, headers) = ("m".into(), RowHeaders::of(RequestId { batch: BatchId::new(), row: 0 }, "row"));
        (Session::new(SessionStart { registry, model, permit, route, history, headers, observer }), limiter)
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

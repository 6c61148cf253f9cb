//! The ways of a model's calls: the servers that have it, and which of them the next call goes to.
//!
//! Of the servers that take a call now, it is the one with the least relative load: rows under way, by what its
//! admission allows and by its weight. A row whose last call failed goes to another server, if one takes it.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures::future::{FutureExt as _, select_all};

use super::Call;
use super::admission::{Admission, CallHistory, LoneEntry};
use super::body_priority::{has_priorities, with_priority};
use super::model_name::with_model;
use super::server::Server;
use crate::domain::activity::{UpstreamActivity, UpstreamState};
use crate::domain::time::Timestamp;

/// Rows that a server may have under way which has answered none, beside one that answers. Whether it hangs is not
/// known, and its rows would wait for their time-outs.
const UNPROVEN: usize = 16;

/// One way of a model's calls.
#[derive(Debug, Clone)]
pub struct Route {
    pub(super) server: Arc<Server>,
    pub(super) admission: Arc<Admission>,
    /// The server's name for the model, if rows have another.
    pub(super) server_model: Option<Arc<str>>,
}

/// The ways of a model's calls. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Routes {
    pub(super) model: Arc<str>,
    routes: Arc<[Route]>,
}

/// A row's place at a server: it counts among the rows that the server has under way. Dropping it ends that.
#[derive(Debug)]
pub struct RouteUse {
    pub(super) model: Arc<str>,
    pub(super) route: Route,
    /// The right to call alone, if rows may only begin so.
    pub(super) entry: Option<LoneEntry>,
}

impl Route {
    pub(super) fn new(server: &Arc<Server>, model: &Arc<str>) -> Self {
        let server_model = server.models_served().aliased(model).cloned();
        let admission = server.admission(server_model.as_ref().unwrap_or(model));
        Self { server: server.clone(), admission, server_model }
    }

    /// The body that the server is to have for a call, if it is another.
    pub(super) fn other_body(&self, call: &Call) -> Option<Bytes> {
        let aliased = self.server_model.as_ref().map(|name| with_model(&call.body, name));
        match self.server.body_priority.filter(|_| has_priorities(call.endpoint)) {
            Some(priority) => Some(with_priority(aliased.as_ref().unwrap_or(&call.body), priority)),
            None => aliased,
        }
    }

    fn may_begin(&self) -> bool {
        self.admission.may_begin() && self.server.has_room()
    }

    /// Whether a row that was at `last` may go on here: at an escalation server only if it was there.
    fn may_go_on(&self, last: Option<&Self>) -> bool {
        !self.server.is_escalation() || last.is_some_and(|last| last.is(self))
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.admission, &other.admission)
    }

    /// Which of two a row with a history goes to: the lesser.
    fn order(&self, other: &Self, history: CallHistory) -> Ordering {
        let has_failed = |route: &Self| history.failed_at == Some(route.server.no()) || route.admission.is_suspect();
        let load = |route: &Self| route.admission.load() / route.server.weight();
        let [own, others] = [self, other].map(|route| (has_failed(route), route.server.is_escalation()));
        own.cmp(&others).then_with(|| load(self).total_cmp(&load(other)))
    }
}

impl Routes {
    pub(super) fn new(model: &Arc<str>, routes: Vec<Route>) -> Self {
        Self { model: model.clone(), routes: routes.into() }
    }

    /// Whether a row may begin, of a batch that is at risk of missing its window or not. A few relaxed loads.
    #[must_use]
    pub fn may_begin(&self, is_at_risk: bool) -> bool {
        self.routes.iter().any(|route| self.lets_begin(route, is_at_risk))
    }

    fn lets_begin(&self, route: &Route, is_at_risk: bool) -> bool {
        if route.server.is_escalation() && !is_at_risk {
            return false;
        }
        let is_proven = self.routes.len() == 1
            || route.admission.has_taken()
            || route.admission.rows() < UNPROVEN
            || !self.routes.iter().any(|other| other.admission.has_taken());
        is_proven && route.may_begin() && !self.is_doubted(route)
    }

    /// Whether a server is suspect beside one that is not, and is not to be tried again yet.
    fn is_doubted(&self, route: &Route) -> bool {
        route.admission.is_suspect()
            && self.routes.iter().any(|other| !other.admission.is_suspect())
            && !route.admission.is_trial_due()
    }

    /// What the calls of the model have shown of its servers. `now` is the time of the wall clock.
    #[must_use]
    pub fn activities(&self, now: Timestamp) -> Vec<UpstreamActivity> {
        let activity = |route: &Route| {
            let activity = route.admission.activity(now);
            match route.server.rests_outside() {
                Some(window) => {
                    UpstreamActivity { state: UpstreamState::Resting { hours: window.to_string() }, ..activity }
                }
                None => activity,
            }
        };
        self.routes.iter().map(activity).collect()
    }

    /// How many servers have the model.
    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    /// Has a row begin at the best server that lets one begin, or else at the best. None if no server has the model.
    #[must_use]
    pub fn begin(&self, history: CallHistory, is_at_risk: bool) -> Option<RouteUse> {
        let lets_begin = |route: &Route| self.lets_begin(route, is_at_risk);
        let route = self.best(history, lets_begin).or_else(|| self.best(history, |_| true))?;
        Some(RouteUse::new(self.model.clone(), route.clone(), route.admission.enter()))
    }

    /// Has a row go on, at the server where it was, if that takes a call now. None if no server does. A row that has
    /// begun waits for no other row, so that only what the servers take bounds it.
    pub(super) fn go_on(&self, last: Option<&Route>, history: CallHistory) -> Option<RouteUse> {
        let is_open = |route: &Route| route.admission.check().is_ok() && route.may_go_on(last);
        let was = |route: &&Route| last.is_some_and(|last| last.is(route)) && is_open(route);
        let same = self.routes.iter().find(was).filter(|route| history.failed_at != Some(route.server.no()));
        let route = same.or_else(|| self.best(history, is_open))?;
        Some(RouteUse::new(self.model.clone(), route.clone(), None))
    }

    fn best(&self, history: CallHistory, fits: impl Fn(&Route) -> bool) -> Option<&Route> {
        match &*self.routes {
            [only] => fits(only).then_some(only),
            routes => routes.iter().filter(|route| fits(route)).min_by(|route, other| route.order(other, history)),
        }
    }

    /// Why no server takes a call of the model now.
    pub(super) fn held_back(&self) -> String {
        let mut reasons = self.routes.iter().filter_map(|route| route.admission.check().err());
        reasons.next_back().unwrap_or_else(|| format!("no upstream has the model '{}'", self.model))
    }

    /// Waits until a server takes a call with which [`Self::go_on`] has a row go on. It never ends if there is none.
    pub(super) async fn until_open(&self, last: Option<&Route>) {
        let usable = self.routes.iter().filter(|route| route.may_go_on(last));
        let open: Vec<_> = usable.map(|route| route.admission.until_open().boxed()).collect();
        if open.is_empty() {
            return std::future::pending().await;
        }
        select_all(open).await;
    }
}

impl RouteUse {
    fn new(model: Arc<str>, route: Route, entry: Option<LoneEntry>) -> Self {
        for rows in route.counters() {
            rows.fetch_add(1, Relaxed);
        }
        Self { model, route, entry }
    }
}

impl Drop for RouteUse {
    fn drop(&mut self) {
        for rows in self.route.counters() {
            rows.fetch_sub(1, Relaxed);
        }
    }
}

impl Route {
    /// Where the rows under way are counted.
    fn counters(&self) -> [&AtomicUsize; 2] {
        [self.admission.rows_under_way(), self.server.rows_under_way()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Clock;
    use crate::upstream::{NoUpstream, Registry, ServerSettings};

    /// Has a server take no calls.
    fn close(route: &Route) {
        let calls: Vec<_> = (0..5).map(|_| route.admission.begin(false).expect("it takes calls")).collect();
        for call in calls {
            call.gone(None, "it is gone".to_owned(), &mut CallHistory::default());
        }
    }

    #[test]
    fn a_row_waits_for_a_server_where_it_may_go_on_and_for_no_other() {
        let server = |is_escalation| {
            let settings = ServerSettings { is_escalation, ..ServerSettings::default() };
            Arc::new(Server::embedded(NoUpstream, settings, Clock::System))
        };
        let registry = Registry::of_all(vec![server(false), server(true)]);
        registry.set_limit(8);
        let routes = registry.routes(&"m".into());
        let [usual, escalation] = &*routes.routes else { panic!("two servers have it") };
        close(usual);

        let goes_on = |last| {
            let is_open = routes.until_open(last).now_or_never().is_some();
            (is_open, routes.go_on(last, CallHistory::default()).map(|at| at.route.server.no()))
        };
        assert_eq!(goes_on(Some(usual)), (false, None));
        assert_eq!(goes_on(Some(escalation)), (true, Some(escalation.server.no())));
        assert_eq!(goes_on(None), (false, None));
    }
}

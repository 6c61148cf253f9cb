//! How many calls a project may make in a minute.
//!
//! `governor` counts them by GCRA: a minute's calls may come at once, and each is given back when its part of the
//! minute has passed. Every process counts for itself, so that no call waits for a database.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use quick_cache::sync::Cache;

use super::ApiError;
use crate::domain::owner::Owner;
use crate::domain::project_limits::ProjectLimitTable;

/// Projects that are counted at once. One that is forgotten begins anew.
const PROJECTS: usize = 10_000;

type RequestLimiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Counts the calls of each project.
pub struct RequestRates {
    limits: Arc<ProjectLimitTable>,
    limiters: Cache<Owner, Arc<RequestLimiter>>,
    clock: DefaultClock,
}

/// A call that may be made, and how many more may follow at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountedCall {
    pub(super) limit: NonZeroU32,
    pub(super) left: u32,
}

impl RequestRates {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(limits: Arc<ProjectLimitTable>) -> Self {
        Self { limits, limiters: Cache::new(PROJECTS), clock: DefaultClock::default() }
    }

    /// Counts a call of a project. None if the project has no such limit.
    ///
    /// # Errors
    /// The project has made its calls of this minute.
    pub(super) fn count(&self, project: &Owner) -> Result<Option<CountedCall>, Box<Response>> {
        let Some(limit) = self.limits.of(project).requests_per_minute else { return Ok(None) };
        let limiter = self.limiters.get_or_insert_with(project, || {
            let limiter = RateLimiter::direct(Quota::per_minute(limit));
            Ok::<_, std::convert::Infallible>(Arc::new(limiter.with_middleware::<StateInformationMiddleware>()))
        });
        let Ok(limiter) = limiter;
        match limiter.check() {
            Ok(state) => Ok(Some(CountedCall { limit, left: state.remaining_burst_capacity() })),
            Err(refused) => Err(refusal(limit, refused.wait_time_from(self.clock.now())).into()),
        }
    }
}

impl CountedCall {
    /// Tells the client what is left, in the headers that OpenAI has for it (contract §10.3).
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        let Self { limit, left } = self;
        headers.insert("x-ratelimit-limit-requests", limit.get().into());
        headers.insert("x-ratelimit-remaining-requests", left.into());
    }
}

fn refusal(limit: NonZeroU32, wait: Duration) -> Response {
    // In whole seconds, and not too early.
    let wait = wait.as_secs() + 1;
    let message = format!(
        "Rate limit reached for requests of this project: it may make {limit} in a minute. Please try again in {wait}s."
    );
    let mut response = ApiError::rate_limited(message).into_response();
    let headers = response.headers_mut();
    CountedCall { limit, left: 0 }.tell(headers);
    headers.insert(axum::http::header::RETRY_AFTER, wait.into());
    response
}

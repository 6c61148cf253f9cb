//! Limits of requests and tokens in time, as an upstream's answers state them.

use std::time::Duration;

/// How many requests or tokens an upstream takes in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The most that it takes at once, after a pause.
    pub limit: u64,
    /// What it takes now.
    pub remaining: u64,
    /// After how long it takes the most again.
    pub reset: Duration,
}

/// The limits that one answer states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Of requests.
    pub requests: Option<RateLimit>,
    /// Of tokens.
    pub tokens: Option<RateLimit>,
}

impl RateLimits {
    /// Whether the answer states no limit.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }
}

//! HTTP as a client: what the callers of upstreams, tools, MCP servers and our own API have in common.
//!
//! The module knows no server's API. It bounds what a server can do: which addresses, how long, how many bytes.

mod body;
mod client;
mod guard;
mod hosts;
mod proxy;
mod rate_limits;
mod retry_after;
mod trust;

use std::error::Error;

use reqwest::header::HeaderName;

pub use body::{AnswerProgress, BoundedBody, UnfinishedBody, read_body};
pub use client::{ClientSettings, Reach};
pub use guard::{UrlRefusal, check_receiver};
pub use hosts::{AllowedHost, AllowedHosts, HostError};
pub use proxy::proxy_of;
pub use rate_limits::rate_limits;
pub use retry_after::retry_after;
pub use trust::tls_with;

use crate::causes::causes;

/// Whether a server has answered with something that is no head of an HTTP answer.
#[must_use]
pub fn is_invalid_head(error: &reqwest::Error) -> bool {
    causes(error).any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse))
}

/// The header by which a server recognises a repeated request.
pub static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The innermost cause of an error. It says what happened; the outer errors of `reqwest` name the URL, which may have a
/// key in it.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

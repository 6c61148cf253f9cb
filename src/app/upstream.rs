//! The inference server that the settings name.

use reqwest::header::HeaderValue;

use super::error::ServiceError;
use crate::config::{Secret, ServeConfig, UpstreamConfig, shown_url, without_credentials};
use crate::domain::time::Clock;
use crate::upstream::{Registry, ReqwestHttpClient, Server, UpstreamSettings};

pub(super) fn registry(settings: &ServeConfig, clock: &Clock) -> Result<Registry, ServiceError> {
    let (config, concurrency) = (&settings.upstream, settings.worker.max_concurrency);
    let given = config.upstream.as_ref().ok_or(ServiceError::NoUpstreamGiven)?;
    let base_url = given.reveal().parse().map_err(ServiceError::UpstreamNotUrl)?;
    let (base_url, credentials) = without_credentials(base_url).map_err(ServiceError::UpstreamNotHttp)?;
    let key = authorization(config, credentials)?;
    tracing::info!(upstream = shown_url(base_url.as_str()), concurrency, "upstream");
    let called = UpstreamSettings { base_url, key, timeout: config.request_timeout, max_idle: concurrency as usize };
    let client = ReqwestHttpClient::new(&called, clock.clone()).map_err(ServiceError::HttpClient)?;
    let server = Server::over_http(client, settings.responses.upstream_responses, clock.clone());
    Ok(Registry::of(server.with_concurrency(settings.worker.concurrency)))
}

/// The header `Authorization` of every call: the key, or the credentials that were in the URL.
fn authorization(config: &UpstreamConfig, credentials: Option<Secret>) -> Result<Option<HeaderValue>, ServiceError> {
    let text = match (&config.upstream_key, credentials) {
        (Some(_), Some(_)) => return Err(ServiceError::TwoUpstreamKeys),
        (Some(key), None) => format!("Bearer {}", key.reveal()),
        (None, Some(credentials)) => credentials.reveal().to_owned(),
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::try_from(text).map_err(ServiceError::UpstreamKey)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

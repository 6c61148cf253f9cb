//! The inference server that the settings name.

use anyhow::{Context as _, bail};
use reqwest::header::HeaderValue;

use crate::config::{ServeConfig, shown_url, without_credentials};
use crate::domain::time::Clock;
use crate::upstream::{Registry, ReqwestHttpClient, Server, UpstreamSettings};

pub(super) fn registry(settings: &ServeConfig, clock: &Clock) -> anyhow::Result<Registry> {
    let (config, concurrency) = (&settings.upstream, settings.worker.max_concurrency);
    let Some(given) = &config.upstream else {
        bail!(
            "no inference server is given: say which with --upstream URL, such as --upstream http://127.0.0.1:8000/v1 \
             (or try `batchwright demo`, which brings its own)"
        );
    };
    let base_url = given.reveal().parse().context("--upstream is not a URL")?;
    let (base_url, credentials) =
        without_credentials(base_url).map_err(|why| anyhow::anyhow!("--upstream cannot be used: {why}"))?;
    let key = match (&config.upstream_key, credentials) {
        (Some(_), Some(_)) => bail!(
            "--upstream has a user name or a password in it, and --upstream-key is given too; both are sent as the \
             header Authorization: leave one of them out"
        ),
        (Some(key), None) => Some(format!("Bearer {}", key.reveal())),
        (None, credentials) => credentials.map(|credentials| credentials.reveal().to_owned()),
    };
    let sensitive = |key: String| {
        let mut value =
            HeaderValue::try_from(key).context("--upstream-key has characters that no HTTP header can have")?;
        value.set_sensitive(true);
        anyhow::Ok(value)
    };
    let key = key.map(sensitive).transpose()?;
    tracing::info!(upstream = shown_url(base_url.as_str()), concurrency, "upstream");
    let called = UpstreamSettings { base_url, key, timeout: config.request_timeout, max_idle: concurrency as usize };
    let client = ReqwestHttpClient::new(&called, clock.clone()).context("the HTTP client cannot be set up")?;
    Ok(Registry::of(Server::over_http(client, settings.responses.upstream_responses, clock.clone())))
}

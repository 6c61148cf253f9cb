//! Asks an upstream for its models when it is new, to say early that its base URL or its key is wrong.
//!
//! Nothing follows from the answers but lines in the log: rows find out by themselves what an upstream takes.

use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::shown_url;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;
use crate::upstream::{ReqwestHttpClient, UpstreamSettings};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ends of URLs that are those of an endpoint, and not the base of all.
const ENDPOINTS: [&str; 6] =
    ["/chat/completions", "/completions", "/responses", "/embeddings", "/moderations", "/models"];

/// Logs what is wrong with the settings of an upstream, as far as its list of models shows it.
pub(super) async fn check(upstream: &str, settings: &UpstreamSettings) {
    let url = shown_url(settings.base_url.as_str());
    let answer = match models(settings, settings.base_url.clone()).await {
        Ok(answer) => answer,
        Err(why) => {
            tracing::warn!(
                upstream,
                url,
                why,
                "an upstream does not answer: its rows wait until it does. Is its base URL right, and does it run?"
            );
            return;
        }
    };
    let status = answer.status;
    match status {
        _ if is_list(&answer) => tracing::debug!(upstream, url, "an upstream has listed its models"),
        401 | 403 if settings.headers.is_empty() => tracing::warn!(
            upstream,
            url,
            status,
            "an upstream asks for a key: give it with --upstream-key, or as `key` in its table"
        ),
        401 | 403 => tracing::warn!(
            upstream,
            url,
            status,
            "an upstream refuses its key: change --upstream-key, or `key` or `headers` in its table"
        ),
        300..=399 => tracing::warn!(
            upstream,
            url,
            status,
            "an upstream redirects calls, and no redirect is followed: change its base URL to where it leads"
        ),
        429 | 500.. => tracing::info!(upstream, url, status, "an upstream is not ready yet: its rows wait until it is"),
        _ => has_no_list(upstream, settings, &url, status).await,
    }
}

/// Logs where the list of models is, if it is not below the base URL.
async fn has_no_list(upstream: &str, settings: &UpstreamSettings, url: &str, status: u16) {
    for other in other_bases(&settings.base_url) {
        let answer = models(settings, other.clone()).await;
        // A server that asks for a key there, and not here, has something there.
        if answer.is_ok_and(|answer| is_list(&answer) || matches!(answer.status, 401 | 403)) {
            let instead = shown_url(other.as_str());
            let said = "the base URL of an upstream is wrong: change it to `instead`";
            tracing::warn!(upstream, url, status, %instead, "{said}");
            return;
        }
    }
    if is_endpoint(&settings.base_url) || !has_version(&settings.base_url) {
        tracing::warn!(
            upstream,
            url,
            status,
            "the base URL of an upstream seems to be wrong: it is the part before /chat/completions, mostly with /v1"
        );
    } else {
        tracing::info!(upstream, url, status, "an upstream has no list of models");
    }
}

async fn models(settings: &UpstreamSettings, base_url: Url) -> Result<HttpResponse, String> {
    let settings = UpstreamSettings { base_url, timeout: PATIENCE, ..settings.clone() };
    let client = ReqwestHttpClient::new(&settings, Clock::System).map_err(|error| error.to_string())?;
    client.models().await.map_err(|error| error.to_string())
}

fn is_list(answer: &HttpResponse) -> bool {
    #[derive(Deserialize)]
    struct AnyModelList {
        #[serde(rename = "data")]
        _data: Vec<IgnoredAny>,
    }
    answer.is_success() && serde_json::from_slice::<AnyModelList>(&answer.body).is_ok()
}

fn is_endpoint(base: &Url) -> bool {
    ENDPOINTS.iter().any(|endpoint| base.path().trim_end_matches('/').ends_with(endpoint))
}

/// Whether the path ends with a version, such as `/v1`.
fn has_version(base: &Url) -> bool {
    let last = base.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    last.strip_prefix('v').is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
}

/// Base URLs that may have been meant.
fn other_bases(base: &Url) -> Vec<Url> {
    let path = base.path().trim_end_matches('/');
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let without_endpoint = ENDPOINTS.iter().find_map(|endpoint| path.strip_suffix(endpoint));
    let paths = match without_endpoint {
        Some(path) => vec![path.to_owned(), format!("{path}/v1")],
        None if has_version(base) => vec![parent.to_owned()],
        None => vec![format!("{path}/v1"), parent.to_owned(), format!("{parent}/v1")],
    };
    let at = |path: String| {
        let mut url = base.clone();
        url.set_path(&path);
        url
    };
    let mut others: Vec<_> = paths.into_iter().map(at).filter(|url| url != base).collect();
    others.dedup();
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_meant_is_near_the_url_that_was_given() {
        let cases: [(&str, &[&str]); 5] = [
            ("http://h", &["http://h/v1"]),
            ("http://h/v1", &["http://h/"]),
            ("http://h/v1/chat/completions", &["http://h/v1", "http://h/v1/v1"]),
            ("http://h/chat/completions/", &["http://h/", "http://h/v1"]),
            ("http://h/api?k=1", &["http://h/api/v1?k=1", "http://h/?k=1", "http://h/v1?k=1"]),
        ];
        for (given, expected) in cases {
            let others = other_bases(&given.parse().expect("a URL"));
            assert_eq!(others.iter().map(Url::as_str).collect::<Vec<_>>(), expected, "{given}");
        }
    }
}

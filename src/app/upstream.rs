//! The inference servers that the settings name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use rustls::ClientConfig;

use super::error::ServiceError;
use super::upstream_check::check;
use crate::config::{Certificates, ServeConfig, UpstreamTable, address, shown_url};
use crate::domain::time::Clock;
use crate::net::{proxy_of, tls_with};
use crate::sync::lock;
use crate::upstream::{GivenModels, GivenRates, Registry, ReqwestHttpClient, Server, ServerSettings, UpstreamSettings};

/// The name for every model that no other upstream has.
const ALL_MODELS: &str = "*";

/// How an upstream is called in messages.
struct Spelling {
    /// The upstream.
    what: String,
    /// The setting of its key.
    key: &'static str,
}

/// The upstreams of a settings file, which can be read again while the service runs.
pub struct Upstreams {
    settings: ServeConfig,
    registry: Registry,
    clock: Clock,
    /// The servers, and what each was made of.
    servers: Mutex<Vec<(UpstreamTable, Arc<Server>)>>,
    /// How the servers that were not checked yet are called.
    unchecked: Mutex<Vec<(Arc<str>, UpstreamSettings)>>,
}

impl Upstreams {
    /// The upstreams of the settings.
    pub(super) fn new(settings: &ServeConfig, clock: &Clock) -> Result<Self, ServiceError> {
        let config = &settings.upstream;
        let (registry, servers) = (Registry::of_all(Vec::new()), Mutex::default());
        let (settings, clock, unchecked) = (settings.clone(), clock.clone(), Mutex::default());
        let upstreams = Self { settings, registry, clock, servers, unchecked };
        match (&config.upstream, &*config.upstreams) {
            (Some(_), [_, ..]) => return Err(ServiceError::TwoKindsOfUpstreams),
            (None, []) => return Err(ServiceError::NoUpstreamGiven),
            (None, _) if config.upstream_key.is_some() => return Err(ServiceError::KeyOfNoUpstream),
            (None, tables) => upstreams.replace(tables)?,
            (Some(url), []) => {
                let table = UpstreamTable::of_flags(url, config.upstream_key.as_ref());
                let spelling = Spelling { what: "--upstream".to_owned(), key: "--upstream-key" };
                upstreams.registry.replace(vec![Arc::new(upstreams.server(&table, &spelling)?)]);
            }
        }
        Ok(upstreams)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Reads the settings file's `[[upstreams]]` again. An upstream whose table is as it was stays, with all that is
    /// known of it. Calls under way at others go on.
    ///
    /// # Errors
    /// What is wrong with the file. Then nothing changes.
    pub fn read_again(&self, path: &Path) -> Result<(), ServiceError> {
        let tables = UpstreamTable::read_all(path).map_err(|error| ServiceError::Upstream(error.to_string()))?;
        self.replace(&tables)
    }

    /// Asks each server once for its models, and logs which base URLs and keys are wrong.
    pub async fn check(&self) {
        let servers = std::mem::take(&mut *lock(&self.unchecked));
        join_all(servers.iter().map(|(name, settings)| check(name, settings))).await;
    }

    fn replace(&self, tables: &[UpstreamTable]) -> Result<(), ServiceError> {
        let names: BTreeSet<_> = tables.iter().map(|table| &table.name).collect();
        if tables.is_empty() {
            return Err(ServiceError::NoUpstreamGiven);
        }
        if names.iter().any(|name| name.is_empty()) {
            return Err(ServiceError::Upstream("one of [[upstreams]] has no name".to_owned()));
        }
        if names.len() < tables.len() {
            return Err(ServiceError::Upstream("two [[upstreams]] have the same name".to_owned()));
        }
        let mut known = lock(&self.servers);
        let server = |table: &UpstreamTable| -> Result<Arc<Server>, ServiceError> {
            if let Some((_, server)) = known.iter().find(|(was, _)| was == table) {
                return Ok(server.clone());
            }
            let spelling = Spelling { what: format!("the upstream '{}'", table.name), key: "key" };
            let server = self.server(table, &spelling)?;
            // With other settings, it is still the server that the rows under way burden.
            let before = known.iter().find(|(was, _)| was.name == table.name && was.url == table.url);
            Ok(Arc::new(match before {
                Some((_, before)) => server.in_place_of(before),
                None => server,
            }))
        };
        let made = tables.iter().map(|table| Ok((table.clone(), server(table)?)));
        let made: Vec<_> = made.collect::<Result<_, ServiceError>>()?;
        self.registry.replace(made.iter().map(|(_, server)| server.clone()).collect());
        *known = made;
        Ok(())
    }

    fn server(&self, table: &UpstreamTable, spelling: &Spelling) -> Result<Server, ServiceError> {
        let wrong = |why: String| ServiceError::Upstream(format!("{} cannot be used: {why}", spelling.what));
        let (base_url, headers) = address_of(table, spelling).map_err(wrong)?;
        let proxy = proxy_of(&base_url).map_err(wrong)?;
        let server = server_settings(&self.settings, table).map_err(wrong)?;
        let most = self.settings.worker.max_concurrency;
        let url = shown_url(base_url.as_str());
        tracing::info!(upstream = %server.name, url, proxy, models = %server.models, "upstream");
        let certificates = table.certificates.as_ref().or(self.settings.upstream.upstream_ca.as_ref());
        let called = UpstreamSettings {
            base_url,
            headers,
            tls: certificates.map(tls_of).transpose().map_err(wrong)?,
            timeout: table.request_timeout.unwrap_or(self.settings.upstream.request_timeout),
            stall_timeout: self.settings.upstream.stall_timeout,
            max_idle: table.max_concurrency.map_or(most, |own| own.min(most)) as usize,
        };
        let client = ReqwestHttpClient::new(&called, self.clock.clone()).map_err(ServiceError::HttpClient)?;
        lock(&self.unchecked).push((server.name.clone(), called));
        Ok(Server::over_http(client, server, self.clock.clone()))
    }
}

/// TLS that trusts the certificates of a file too.
pub(super) fn tls_of(certificates: &Certificates) -> Result<ClientConfig, String> {
    tls_with(certificates.all()).map_err(|error| format!("the certificates to trust cannot be used: {error}"))
}

/// What the settings say of the only server, whatever calls it.
pub(super) fn only_server(settings: &ServeConfig) -> ServerSettings {
    ServerSettings {
        concurrency: settings.worker.concurrency,
        dialect: settings.responses.upstream_responses,
        stream: settings.upstream.stream,
        exhausted_quota: settings.upstream.exhausted_quota,
        body_priority: settings.upstream.body_priority,
        merged_embeddings: settings.upstream.merged_embeddings as usize,
        ..ServerSettings::default()
    }
}

fn server_settings(settings: &ServeConfig, table: &UpstreamTable) -> Result<ServerSettings, String> {
    let models = match table.models.as_deref() {
        None => GivenModels::Discovered,
        Some([all]) if all == ALL_MODELS => GivenModels::All,
        Some(models) if models.iter().any(|model| model == ALL_MODELS) => {
            return Err(format!("its models are either \"{ALL_MODELS}\" or names, not both"));
        }
        Some(models) if models.iter().all(String::is_empty) => {
            return Err("its list of models is empty; leave models out to have its own list".to_owned());
        }
        Some(models) => GivenModels::Listed(models.iter().map(|model| model.as_str().into()).collect()),
    };
    if !(table.weight.is_finite() && table.weight > 0.0) {
        return Err("its weight is not above 0".to_owned());
    }
    if table.max_concurrency == Some(0) {
        return Err("its max_concurrency is 0; to take an upstream out, remove its table".to_owned());
    }
    if table.requests_per_minute == Some(0) || table.tokens_per_minute == Some(0) {
        return Err("a limit of 0 a minute lets nothing through; to take an upstream out, remove its table".to_owned());
    }
    let only = only_server(settings);
    Ok(ServerSettings {
        name: table.name.as_str().into(),
        models,
        aliases: table
            .aliases
            .iter()
            .map(|(name, of)| (name.as_str().into(), of.as_str().into()))
            .collect::<BTreeMap<_, _>>(),
        weight: table.weight,
        max_concurrency: table.max_concurrency.map(|most| most as usize),
        rates: GivenRates {
            requests_per_minute: table.requests_per_minute,
            tokens_per_minute: table.tokens_per_minute,
        },
        is_escalation: table.escalation,
        run_window: table.run_window,
        concurrency: table.concurrency.unwrap_or(only.concurrency),
        dialect: table.responses.unwrap_or(only.dialect),
        stream: table.stream.unwrap_or(only.stream),
        exhausted_quota: only.exhausted_quota,
        body_priority: table.body_priority.or(only.body_priority),
        reads_metrics: table.metrics,
        merged_embeddings: only.merged_embeddings,
    })
}

/// The base URL, and the headers of every call: the key, or the credentials that were in the URL, is one of them.
fn address_of(table: &UpstreamTable, spelling: &Spelling) -> Result<(Url, HeaderMap), String> {
    let url: Url = table.url.reveal().parse().map_err(|error| format!("its URL is none: {error}"))?;
    let (url, mut headers) = address(&url, &table.headers)?;
    let Some(key) = &table.key else { return Ok((url, headers)) };
    let key = key.reveal().trim();
    if key.is_empty() {
        return Err(format!("{} is empty: leave it out if the server asks for none", spelling.key));
    }
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
        format!("{} has a line break in it, or another character that no HTTP header can have", spelling.key)
    })?;
    value.set_sensitive(true);
    if headers.insert(AUTHORIZATION, value).is_some() {
        return Err(format!(
            "{} is given, and its URL or its headers have credentials too; both are sent as the header Authorization: \
             leave one of them out",
            spelling.key
        ));
    }
    Ok((url, headers))
}

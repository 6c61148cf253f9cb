//! Several inference servers: the tables `[[upstreams]]` of the settings file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::durations::read_optional_time_of_call;
use super::tools::parsed;
use super::{Certificates, ConcurrencyControl, ConfigError, Dialect, Secret, StreamMode, file};
use crate::domain::run_window::RunWindow;

/// The tables of a settings file that say which inference servers there are.
pub(super) const SECTION: &str = "upstreams";

/// `[[upstreams]]`: an inference server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTable {
    /// Its name in logs, metrics and warnings.
    pub name: String,
    /// Its base URL, as that of `--upstream`. `${NAME}` stands for the environment variable of that name.
    pub url: Secret,
    /// Its key, sent as a bearer token. `${NAME}` stands for the environment variable of that name.
    #[serde(default)]
    pub key: Option<Secret>,
    /// A file with the key instead.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// `--upstream-ca` for this server.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The certificates of that file, so that others make another table.
    #[serde(skip)]
    pub certificates: Option<Certificates>,
    /// Further headers. `${NAME}` stands for the environment variable of that name.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The models that it has: their names, or `"*"` for every model that no other upstream has. If absent, those of
    /// its own list, which is asked for each minute.
    #[serde(default, deserialize_with = "models")]
    pub models: Option<Vec<String>>,
    /// Other names for its models: a row that asks for the first is sent with the second.
    #[serde(default)]
    pub aliases: BTreeMap<String, String>,
    /// How much of the load it has beside others with the same models.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Calls that it may have under way, of all its models together.
    #[serde(default)]
    pub max_concurrency: Option<u32>,
    /// Calls of each model in a minute. What its answers state is believed instead.
    #[serde(default)]
    pub requests_per_minute: Option<u64>,
    /// Tokens of requests and answers of each model in a minute. What its answers state is believed instead.
    #[serde(default)]
    pub tokens_per_minute: Option<u64>,
    /// Whether it gets only rows of batches that are at risk of missing their windows.
    #[serde(default)]
    pub escalation: bool,
    /// The hours of the day in which rows begin here, in UTC: `22:00-06:00`.
    #[serde(default, deserialize_with = "optional_window")]
    pub run_window: Option<RunWindow>,
    /// `--concurrency` for this server.
    #[serde(default)]
    pub concurrency: Option<ConcurrencyControl>,
    /// `--upstream-responses` for this server.
    #[serde(default)]
    pub responses: Option<Dialect>,
    /// `--stream` for this server.
    #[serde(default)]
    pub stream: Option<StreamMode>,
    /// `--body-priority` for this server.
    #[serde(default)]
    pub body_priority: Option<i64>,
    /// Whether its own metrics at `/metrics` are asked each second how many calls wait in it.
    #[serde(default)]
    pub metrics: bool,
    /// `--request-timeout` for this server.
    #[serde(default, deserialize_with = "read_optional_time_of_call")]
    pub request_timeout: Option<Duration>,
}

impl UpstreamTable {
    /// Reads the tables of a settings file, with the environment variables and the files that they name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, ConfigError> {
        #[derive(Deserialize)]
        struct Tables {
            #[serde(default)]
            upstreams: Vec<UpstreamTable>,
        }
        let tables = file::read_tables::<Tables>(path, &[SECTION])?.upstreams;
        let resolved = tables.into_iter().map(|table| {
            let name = table.name.clone();
            table.resolved().map_err(|why| ConfigError::BadTable { path: path.to_owned(), table: name, why })
        });
        resolved.collect()
    }

    /// The only server, which has all models.
    #[must_use]
    pub fn of_flags(url: &Secret, key: Option<&Secret>) -> Self {
        Self {
            name: "default".to_owned(),
            url: url.clone(),
            key: key.cloned(),
            key_file: None,
            ca: None,
            certificates: None,
            headers: BTreeMap::new(),
            models: Some(vec!["*".to_owned()]),
            aliases: BTreeMap::new(),
            weight: default_weight(),
            max_concurrency: None,
            requests_per_minute: None,
            tokens_per_minute: None,
            escalation: false,
            run_window: None,
            concurrency: None,
            responses: None,
            stream: None,
            body_priority: None,
            metrics: false,
            request_timeout: None,
        }
    }

    /// The table with the key and the certificates of its files, so that another key makes another table.
    fn resolved(mut self) -> Result<Self, String> {
        self.url = self.url.with_environment()?;
        self.key = match (&self.key, &self.key_file) {
            (Some(_), Some(_)) => return Err("it has both key and key_file: leave one of them out".to_owned()),
            (Some(key), None) => Some(key.with_environment()?),
            (None, Some(file)) => {
                let read = Secret::read(file);
                let key = read.map_err(|error| format!("its key_file {} cannot be read: {error}", file.display()))?;
                if key.reveal().is_empty() {
                    return Err(format!("its key_file {} has no key in its first line", file.display()));
                }
                Some(key)
            }
            (None, None) => None,
        };
        if let Some(file) = &self.ca {
            let read = Certificates::read(file).map_err(|why| format!("its ca {} {why}", file.display()))?;
            self.certificates = Some(read);
        }
        Ok(self)
    }
}

fn default_weight() -> f64 {
    1.0
}

/// One name or a list of names.
fn models<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected the name of a model, \"*\", or a list of names")]
    enum NameOrNames {
        One(String),
        Several(Vec<String>),
    }
    Ok(Some(match NameOrNames::deserialize(deserializer)? {
        NameOrNames::One(model) => vec![model],
        NameOrNames::Several(models) => models,
    }))
}

fn optional_window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RunWindow>, D::Error> {
    parsed(deserializer).map(Some)
}

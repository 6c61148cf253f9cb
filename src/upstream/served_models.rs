//! Which models a server has: as the settings say, or as the server's own list does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, RwLock};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::json_error::plainly;
use crate::sync::{lock, read_lock, write_lock};

/// Ollama lists a model with this tag, and takes it without.
const LATEST: &str = ":latest";

/// The models that the settings give a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenModels {
    /// Every model that no other server is known to have.
    All,
    /// These.
    Listed(BTreeSet<Arc<str>>),
    /// Those of its own list, which is asked for again and again.
    Discovered,
}

impl fmt::Display for GivenModels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Listed(models) => f.write_str(&models.iter().map(|model| &**model).collect::<Vec<_>>().join(", ")),
            Self::Discovered => f.write_str("those that it lists"),
        }
    }
}

/// The models of one server, and the names by which rows may ask for them.
#[derive(Debug)]
pub(super) struct ServedModels {
    given: GivenModels,
    /// Other names, and the server's name for each.
    aliases: BTreeMap<Arc<str>, Arc<str>>,
    /// The server's own list. None before it has answered.
    discovered: RwLock<Option<BTreeSet<Arc<str>>>>,
    /// Why it did not answer the last time.
    failure: Mutex<Option<String>>,
}

/// How well a server fits a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It does not have the model.
    No,
    /// It takes what no other server has.
    AsAnyOther,
    /// It has the model by name.
    ByName,
}

impl ServedModels {
    pub(super) fn new(given: GivenModels, aliases: BTreeMap<Arc<str>, Arc<str>>) -> Self {
        Self { given, aliases, discovered: RwLock::default(), failure: Mutex::default() }
    }

    /// How well the server fits a model. A row without a model fits every server.
    pub(super) fn fit(&self, model: &str) -> Fit {
        let alias_of = self.aliases.get(model);
        let model = alias_of.map_or(model, |name| name);
        let has = match &self.given {
            _ if model.is_empty() => true,
            GivenModels::All | GivenModels::Listed(_) if alias_of.is_some() => true,
            GivenModels::All => return Fit::AsAnyOther,
            GivenModels::Listed(models) => models.contains(model),
            GivenModels::Discovered => {
                read_lock(&self.discovered).as_ref().is_some_and(|models| models.contains(model))
            }
        };
        if has { Fit::ByName } else { Fit::No }
    }

    /// The server's name for a model that has another name here.
    pub(super) fn aliased(&self, model: &str) -> Option<&Arc<str>> {
        self.aliases.get(model)
    }

    /// The names that the settings give models of this server.
    pub(super) fn given_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let listed = if let GivenModels::Listed(models) = &self.given { Some(models) } else { None };
        self.aliases.keys().chain(listed.into_iter().flatten())
    }

    /// Whether the server's own list says which models it has.
    pub(super) fn are_discovered(&self) -> bool {
        self.given == GivenModels::Discovered
    }

    /// Whether it is not known yet which models the server has.
    pub(super) fn are_unknown(&self) -> bool {
        self.are_discovered() && read_lock(&self.discovered).is_none()
    }

    /// Notes why the server did not tell its list. Whether that is another reason than before.
    pub(super) fn note_failure(&self, why: String) -> bool {
        lock(&self.failure).replace(why.clone()) != Some(why)
    }

    /// Why the server did not tell its list the last time, if it did not.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// Takes the server's list. Whether it is another one than before.
    pub(super) fn discover(&self, models: BTreeSet<Arc<str>>) -> bool {
        *lock(&self.failure) = None;
        let mut discovered = write_lock(&self.discovered);
        let is_other = discovered.as_ref() != Some(&models);
        *discovered = Some(models);
        is_other
    }
}

/// A model's id, and what its server says of it.
pub(super) type ModelEntry = (Arc<str>, Box<RawValue>);

/// Reads a server's list of models. Entries without an id are left out.
///
/// # Errors
/// Why it is none.
pub(super) fn entries(list: &[u8]) -> Result<Vec<ModelEntry>, String> {
    #[derive(Deserialize)]
    struct Entries {
        data: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Named {
        id: Arc<str>,
    }
    let list: Entries = serde_json::from_slice(list).map_err(|error| plainly(&error))?;
    let named = |entry: Box<RawValue>| Some((serde_json::from_str::<Named>(entry.get()).ok()?.id, entry));
    Ok(list.data.into_iter().filter_map(named).collect())
}

/// The names by which a server takes the models of its list.
///
/// # Errors
/// Why it is no list.
pub(super) fn listed_models(list: &[u8]) -> Result<BTreeSet<Arc<str>>, String> {
    let mut models: BTreeSet<Arc<str>> = entries(list)?.into_iter().map(|(id, _)| id).collect();
    let untagged: Vec<_> = models.iter().filter_map(|model| Some(Arc::from(model.strip_suffix(LATEST)?))).collect();
    models.extend(untagged);
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_what_it_is_given_or_what_it_lists() {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<Arc<str>>>();
        let listed = || GivenModels::Listed(names(&["a", "b"]));
        let list = br#"{"object":"list","data":[{"id":"a"},{"id":"llama:latest","object":"model"}]}"#;
        let cases = [
            (listed(), "a", Fit::ByName),
            (listed(), "llama", Fit::No),
            (listed(), "short", Fit::ByName),
            (listed(), "", Fit::ByName),
            (GivenModels::All, "a", Fit::AsAnyOther),
            (GivenModels::All, "short", Fit::ByName),
            (GivenModels::Discovered, "short", Fit::No),
            (GivenModels::Discovered, "other", Fit::ByName),
            (GivenModels::Discovered, "a", Fit::ByName),
            (GivenModels::Discovered, "b", Fit::No),
            (GivenModels::Discovered, "llama", Fit::ByName),
            (GivenModels::Discovered, "llama:latest", Fit::ByName),
        ];
        for (given, model, expected) in cases {
            let models = ServedModels::new(
                given.clone(),
                BTreeMap::from([("short".into(), "long".into()), ("other".into(), "a".into())]),
            );
            models.discover(listed_models(list).expect("it is a list"));
            assert_eq!(models.fit(model), expected, "{given:?} {model}");
        }
    }

    #[test]
    fn a_list_is_news_once() {
        let models = ServedModels::new(GivenModels::Discovered, BTreeMap::new());
        assert!(models.are_unknown());
        assert!(models.discover(BTreeSet::new()));
        assert!(!models.are_unknown());
        assert!(!models.discover(BTreeSet::new()));
        assert!(models.discover(BTreeSet::from(["a".into()])));
        assert!(listed_models(b"[]").is_err() && listed_models(b"<html>").is_err());
    }
}

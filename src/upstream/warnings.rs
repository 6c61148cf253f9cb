//! What operators should know of the upstreams: which take no calls, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::registry::Registry;
use super::server::Server;

/// So many models are named in a warning.
const NAMED_MODELS: usize = 3;

impl Registry {
    /// The upstreams that take no calls or tell no models, and the models that no upstream has, each as a sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let servers = self.servers();
        let mut warnings: Vec<_> =
            servers.iter().flat_map(|server| by_reason(server.name(), server.troubles())).collect();
        warnings.extend(servers.iter().filter_map(|server| resting(server)));
        warnings.extend(servers.iter().filter_map(|server| {
            let why = server.models_untold()?;
            Some(format!("the upstream '{}' does not tell which models it has: {why}", server.name()))
        }));
        let unserved = self.unserved();
        if !unserved.is_empty() {
            warnings.push(format!("no upstream has {}, and the rows of its batches wait", named(&unserved)));
        }
        warnings
    }
}

/// One warning for each reason why an upstream's models are not called.
fn by_reason(upstream: &str, troubles: Vec<(Arc<str>, String)>) -> Vec<String> {
    let mut models = BTreeMap::<String, Vec<Arc<str>>>::new();
    for (model, why) in troubles {
        models.entry(why).or_default().push(model);
    }
    let warning = |(why, models): (String, Vec<Arc<str>>)| {
        let named = named(&models);
        format!("the upstream '{upstream}' takes no calls for {named}; rows wait, or go to another upstream: {why}")
    };
    models.into_iter().map(warning).collect()
}

/// The warning of an upstream that is outside its run window.
fn resting(server: &Server) -> Option<String> {
    let window = server.rests_outside()?;
    Some(format!("the upstream '{}' takes no rows outside its run window {window}", server.name()))
}

/// Some names of models, and how many others there are.
fn named(models: &[Arc<str>]) -> String {
    let mut names: Vec<_> = models.iter().take(NAMED_MODELS).map(|model| format!("`{model}`")).collect();
    if models.len() > NAMED_MODELS {
        names.push(format!("{} others", models.len() - NAMED_MODELS));
    }
    names.join(", ")
}

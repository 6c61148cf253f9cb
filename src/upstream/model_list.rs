//! The list of all models that rows may name, for `GET /v1/models`, and one model of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::served_models::{Fit, entries};
use super::{Registry, Server};

/// The lists of all servers as one, with the names that the settings give models. A server that does not answer is left
/// out. The list of an only server without other names is passed on unchanged.
///
/// # Errors
/// A sentence that says why no server has a list.
pub async fn model_list(registry: &Registry) -> Result<Bytes, String> {
    let servers = registry.servers();
    if let [only] = &*servers
        && only.models_served().given_names().next().is_none()
    {
        return list_of(only).await;
    }
    let lists = join_all(servers.iter().map(|server| list_of(server))).await;
    let (mut data, mut names, mut error) = (Vec::new(), BTreeSet::new(), None);
    for (server, list) in servers.iter().zip(lists) {
        match list.and_then(|list| entries(&list)) {
            Ok(entries) => {
                let is_served = |name: &Arc<str>| server.models_served().fit(name) != Fit::No;
                let news = entries.into_iter().filter(|(name, _)| is_served(name) && names.insert(name.clone()));
                data.extend(news.map(|(_, entry)| entry));
            }
            Err(why) => error = Some(why),
        }
    }
    for server in &*servers {
        for name in server.models_served().given_names() {
            if names.insert(name.clone()) {
                let entry = json!({ "id": name, "object": "model", "created": 0, "owned_by": server.name() });
                data.push(to_raw_value(&entry).expect("a value is JSON"));
            }
        }
    }
    match error {
        Some(why) if data.is_empty() => Err(why),
        _ => {
            let entries: Vec<&str> = data.iter().map(|entry| entry.get()).collect();
            Ok(format!(r#"{{"object":"list","data":[{}]}}"#, entries.join(",")).into())
        }
    }
}

/// The entry of a model in that list.
///
/// # Errors
/// A sentence that says why no server has a list.
pub async fn listed_model(registry: &Registry, id: &str) -> Result<Option<Box<RawValue>>, String> {
    let entries = entries(&model_list(registry).await?)?;
    Ok(entries.into_iter().find(|(name, _)| &**name == id).map(|(_, entry)| entry))
}

/// The list of a server, as it is.
async fn list_of(server: &Server) -> Result<Bytes, String> {
    let answer = server.models().await.map_err(|error| error.to_string())?;
    if !answer.is_success() {
        return Err(format!("The upstream answered with status {}.", answer.status));
    }
    match entries(&answer.body) {
        Ok(_) => Ok(answer.body),
        Err(why) => Err(format!("The upstream answered with something else than a list of models: {why}.")),
    }
}

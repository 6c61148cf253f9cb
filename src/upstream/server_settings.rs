//! What the settings say of one inference server.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admission::GivenRates;
use super::served_models::GivenModels;
use crate::config::{ConcurrencyControl, Dialect, ExhaustedQuota, StreamMode};
use crate::domain::run_window::RunWindow;

/// What the settings say of a server.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Its name in logs, metrics and warnings.
    pub name: Arc<str>,
    /// The models that it has.
    pub models: GivenModels,
    /// Other names by which rows may ask for its models, and its own name for each.
    pub aliases: BTreeMap<Arc<str>, Arc<str>>,
    /// How much of the load it is to have, beside others with the same models: above 0, usually 1.
    pub weight: f64,
    /// How many calls it may have under way, of all its models together. None if the registry's limit is enough.
    pub max_concurrency: Option<usize>,
    /// Whether it gets only rows of batches that are at risk of missing their windows.
    pub is_escalation: bool,
    /// The hours in which rows begin. None if they may at any time.
    pub run_window: Option<RunWindow>,
    /// How its calls at once are controlled.
    pub concurrency: ConcurrencyControl,
    /// Limits in time of each model's calls.
    pub rates: GivenRates,
    /// Whether answers are streamed.
    pub stream: StreamMode,
    /// What becomes of rows for which its account has no quota left.
    pub exhausted_quota: ExhaustedQuota,
    /// The priority that bodies of generations get, if they have none.
    pub body_priority: Option<i64>,
    /// Whether its own metrics are asked each second how many calls wait in it.
    pub reads_metrics: bool,
    /// Inputs of embeddings rows that one call may have. With 1 or less, each row is a call.
    pub merged_embeddings: usize,
    /// The API by which rows for `/v1/responses` call it.
    pub dialect: Dialect,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            name: "default".into(),
            models: GivenModels::All,
            aliases: BTreeMap::new(),
            weight: 1.0,
            max_concurrency: None,
            is_escalation: false,
            run_window: None,
            concurrency: ConcurrencyControl::Auto,
            rates: GivenRates::default(),
            stream: StreamMode::Auto,
            exhausted_quota: ExhaustedQuota::Wait,
            body_priority: None,
            reads_metrics: false,
            merged_embeddings: 1,
            dialect: Dialect::Auto,
        }
    }
}

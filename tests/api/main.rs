//! The service as its clients and its upstream see it, over HTTP.

#[path = "../common/mod.rs"]
mod common;

mod batch_retries;
mod batches;
mod broken;
mod calls;
mod client;
mod connections;
mod downloads;
mod embeddings;
mod ending;
mod endpoints;
mod envelopes;
mod failover;
mod hostile_forms;
mod keys;
mod limits;
mod line_errors;
mod lines;
mod message_batches;
mod operations;
mod owners;
mod processors;
mod progress;
mod prompt_order;
mod refusals;
mod requests;
mod resources;
mod restarts;
mod result_events;
mod results;
mod retries;
mod safe_headers;
mod scheduling;
mod server_state;
mod sharing;
mod steering;
mod streams;
mod tenants;
mod tls;
mod uploads;
mod upstreams;
mod webhooks;

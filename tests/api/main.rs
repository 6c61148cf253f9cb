//! The service as its clients and its upstream see it, over HTTP.

#[path = "../common/mod.rs"]
mod common;

mod batch_retries;
mod batches;
mod batches_of_rows;
mod broken;
mod calls;
mod client;
mod connections;
mod downloads;
mod embeddings;
mod ending;
mod envelopes;
mod failover;
mod hostile_forms;
mod line_errors;
mod lines;
mod operations;
mod owners;
mod packed_uploads;
mod processors;
mod progress;
mod prompt_order;
mod refusals;
mod request_keys;
mod requests;
mod resources;
mod restarts;
mod result_events;
mod results;
mod retries;
mod scheduling;
mod server_state;
mod sharing;
mod steering;
mod streams;
mod uploads;
mod uploads_in_parts;
mod upstreams;

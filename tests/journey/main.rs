//! The program from upload to download, as a process of its own, with everything that can happen on the way.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/databases.rs"]
mod databases;

mod commands;
mod embedding;
mod front;
mod kills;
mod settings;
mod stage;
mod stores;
mod tls;
mod upstream_check;
mod webhooks;
mod whole_batches;

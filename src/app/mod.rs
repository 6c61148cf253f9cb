//! The program as a library: storage, API and daemon put together in one process.
//!
//! `batchwright serve` and `batchwright run` are built on it, and so is any program that embeds the service.
//! `examples/custom_processor.rs` shows how. It is the only place that chooses the storage; nothing is decided here
//! about files, batches or rows.

mod engine;
mod error;
mod open_files;
mod service;
mod storage;
mod upstream;
mod upstream_check;

pub(crate) use engine::BatchEngine;
pub use error::ServiceError;
pub use open_files::raise_limit as raise_limit_of_open_files;
pub use service::Service;
pub(crate) use storage::{
    database, existing_storage_beside, lacks_database, lock as lock_data_directory, storage_beside,
};
pub use upstream::Upstreams;

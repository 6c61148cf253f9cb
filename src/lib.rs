//! batchwright gives any OpenAI-compatible inference server the OpenAI Files and Batch API.
//!
//! The crate is the program `batchwright` and, for programs that embed it, its parts: a [`daemon::Daemon`] that runs
//! rows through a [`processor::RequestProcessor`] of your own, an [`api::router`] to serve, and a [`Service`] that puts
//! both together. `examples/custom_processor.rs` shows how. The modules, in reading order:
//!
//! - [`domain`]: what the words mean, without I/O.
//! - [`config`](mod@config): settings.
//! - [`telemetry`]: logs and metrics; [`wakeup`]: the hint that there is something to do.
//! - [`storage`]: metadata in SQL, bytes in a blob store.
//! - [`intake`]: an upload becomes a blob, a row index and a report.
//! - [`service`]: actions that need more than one storage call.
//! - [`upstream`], [`tools`], [`processor`]: one row, one or more calls.
//! - [`daemon`]: claims rows, runs them, records what became of them.
//! - [`api`]: HTTP in, HTTP out.
//! - [`simulator`], [`verify`]: a stand-in for an inference server, and the proof that nothing was lost or doubled.
//! - [`cli`]: one file for each command; `serve` puts everything together.

pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod domain;
mod fault;
pub mod intake;
pub mod processor;
pub mod service;
pub mod simulator;
pub mod storage;
mod sync;
pub mod telemetry;
pub mod tools;
pub mod upstream;
pub mod verify;
pub mod wakeup;

pub use cli::Service;
pub use config::ServeConfig;

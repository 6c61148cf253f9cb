//! batchwright gives any OpenAI-compatible inference server the OpenAI Files and Batch API.
//!
//! The crate is the program `batchwright` and, for programs that embed it, a library. Its front door is
//! [`app::Service`]: storage, API and daemon in one process, with a [`processor::RequestProcessor`] of your own if you
//! like. `examples/custom_processor.rs` shows how. [`client::Client`] talks to a service from another process. The
//! modules, in reading order:
//!
//! - [`domain`]: what the words mean, without I/O.
//! - [`config`](mod@config): settings.
//! - [`telemetry`]: logs and metrics; [`wakeup`]: the hint that there is something to do.
//! - [`net`]: what all calls of other servers have in common.
//! - [`storage`]: metadata in SQL, bytes in a blob store.
//! - [`intake`]: an upload becomes a blob, a row index and a report.
//! - [`upstream`], [`tools`], [`processor`]: one row, one or more calls.
//! - [`webhooks`]: posts to receivers how batches have ended.
//! - [`daemon`]: claims rows, runs them, records what became of them.
//! - [`actions`]: what needs more than one storage call, or a decision.
//! - [`api`]: HTTP in, HTTP out.
//! - [`dashboard`]: pages that show what the service does.
//! - [`client`]: a client of this API, for programs.
//! - [`simulator`], [`verify`]: a stand-in for an inference server, and the proof that nothing was lost or doubled.
//! - [`app`]: puts everything together, serves, and stops in order.
//! - [`cli`]: one file for each command.

pub mod actions;
pub mod api;
pub mod app;
mod causes;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod dashboard;
pub mod domain;
mod fault;
#[cfg(test)]
mod fuzz;
pub mod intake;
pub mod net;
pub mod processor;
pub mod simulator;
pub mod storage;
mod sync;
pub mod telemetry;
pub mod tools;
pub mod upstream;
pub mod verify;
pub mod wakeup;
pub mod webhooks;

pub use app::{Service, ServiceError};
pub use config::ServeConfig;

//! Tools that a model may call and this program runs.
//!
//! The [`Catalog`] has the tools of the settings file; a [`Toolset`] has the tools of one row. A tool's failure is an
//! output that the model sees.

mod catalog;
mod error;
mod http;
pub mod mcp;
mod toolset;

pub use catalog::{Agent, Catalog};
pub use error::ToolError;
pub use http::{HttpTool, HttpToolSettings};
pub use toolset::{Function, NoToolset, Toolset};

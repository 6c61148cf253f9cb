//! Tools that a model may call and this program runs.

mod error;
pub mod guard;
pub mod hosts;
pub mod mcp;

pub use error::ToolError;

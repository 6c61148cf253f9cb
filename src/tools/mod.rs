//! Tools that a model may call and this program runs.

mod guard;
mod mcp;

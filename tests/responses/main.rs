//! Rows for `/v1/responses`, as a client sees them: a real server, a simulated upstream that follows scripts, and real
//! tools.

#[path = "../common/mod.rs"]
mod common;

mod agents;
mod dialects;
mod limits;
mod loops;
mod resume;
mod stage;
mod tools;

//! Rows for `/v1/responses`, as a client sees them: a real server, a simulated upstream that follows scripts, and real
//! tools.

#![allow(clippy::needless_pass_by_value, reason = "JSON is handed over as it is made")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/databases.rs"]
mod databases;

use common::eventually;

mod agents;
mod busy;
mod dialects;
#[allow(dead_code, reason = "the tests of tools use the rest")]
#[path = "../tools/everything.rs"]
mod everything;
mod inside;
mod limits;
mod loops;
mod mcp;
mod parked;
mod resume;
mod schemas;
#[allow(dead_code, reason = "the tests of tools use the rest")]
#[path = "../tools/scripted.rs"]
mod scripted;
mod secrets;
mod stage;
mod tools;

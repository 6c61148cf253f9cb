//! The commands that need no server, as processes of their own.

#[path = "../common/mod.rs"]
mod common;

mod documentation;
mod files;
mod interruptions;
mod kills;
mod runs;
mod stage;
mod validation;

//! The commands of a client: the program as a process of its own, against servers with and without extensions.

#[path = "../common/mod.rs"]
mod common;

mod command;
mod exit_codes;
mod fetching;
mod files;
mod forms;
mod keys;
mod real_server;
mod servers;
mod stand_in;
mod steering;
mod submitting;
mod watching;

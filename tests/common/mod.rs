//! What the tests of the API and the journeys share. `databases.rs` is taken in by itself where it is needed.

#![allow(dead_code, reason = "each test target uses a part of this")]

pub mod builders;
pub mod certificates;
pub mod client;
pub mod eventually;
pub mod fake_upstream;
pub mod keys;
pub mod live_results;
pub mod process;
pub mod proxy;
pub mod raw_http;
pub mod test_app;

//! The values and pure rules that everything else is made of, without I/O, async, SQL or HTTP.
//!
//! Everything else in the crate may import this module; it imports nothing of theirs.

pub mod activity;
pub mod answer;
pub mod api_key;
pub mod attempts;
pub mod batch;
pub mod batch_endpoint;
pub mod canary;
mod codes;
pub mod cost;
pub mod endpoint;
pub mod failures;
pub mod file;
pub mod ids;
pub mod index;
pub mod json_elements;
pub mod json_error;
pub mod lease;
pub mod line;
pub mod outcome;
pub mod owner;
pub mod page;
pub mod pause;
pub mod priority;
pub mod progress;
pub mod project_limits;
pub mod rate_limits;
pub mod recent_course;
pub mod report;
pub mod request;
pub mod request_key;
pub mod response;
pub mod result;
pub mod result_cursor;
pub mod retry;
pub mod row;
pub mod run_window;
pub mod schema;
pub mod sparse_row;
pub mod splitter;
pub mod statistics;
mod text_enum;
pub mod time;
pub mod upload;
pub mod usage;
pub mod webhook;

//! `/v1/responses`: one file for each operation.

mod get;

pub(super) use get::{__path_get_response, get_response};
